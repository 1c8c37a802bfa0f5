"""The demo shop: a page that shows shelves of the HTTP API, sends events to the collector, and live numbers."""
