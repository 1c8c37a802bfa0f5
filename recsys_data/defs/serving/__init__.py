"""What serving did, as assets."""
