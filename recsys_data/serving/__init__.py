"""Serving: answers which items to show to a visitor now, and logs what was shown."""
