"""Incidents (stale datasets, failed checks and runs), and who is notified of them."""
