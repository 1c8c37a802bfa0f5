"""Streams and snapshots as assets, with their sensors and schedules."""
