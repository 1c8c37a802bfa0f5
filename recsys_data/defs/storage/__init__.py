"""Table maintenance and retention as assets."""
