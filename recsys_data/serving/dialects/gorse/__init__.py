"""Gorse's REST API: recommendations, feedback, items and users, as its clients call it (`/api/...`)."""
