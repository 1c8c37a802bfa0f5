"""Snapshots: staged, validated, compared with the day before, published or quarantined."""
