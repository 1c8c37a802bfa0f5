"""Where one event or one item is, from the log to the tables."""
