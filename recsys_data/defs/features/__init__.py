"""Feature views as assets."""
