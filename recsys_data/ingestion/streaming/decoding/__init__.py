"""Log lines -> validated events and dead letters."""
