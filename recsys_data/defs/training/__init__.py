"""Training sets and models as assets."""
