"""Files as sources: CSV, JSON lines and Parquet, in day folders."""
