"""SCD2 histories, refreshed from the stored snapshots."""
