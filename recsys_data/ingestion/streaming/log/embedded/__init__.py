"""The event log on local disk: partitions of segments, for several writer processes."""
