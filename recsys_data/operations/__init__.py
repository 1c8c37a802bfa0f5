"""The processes of `recsys-data up`, its UI, and backups."""
