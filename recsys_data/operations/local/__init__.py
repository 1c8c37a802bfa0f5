"""The processes of `recsys-data up` on one machine."""
