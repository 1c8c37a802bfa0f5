"""Streams: collector -> event log -> micro-batches -> lake."""
