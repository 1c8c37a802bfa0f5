"""Feature views: declared once, computed point in time from events, tiles and histories, in DuckDB SQL."""
