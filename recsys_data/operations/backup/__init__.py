"""Restore points of lake, event log and state."""
