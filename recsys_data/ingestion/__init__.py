"""How data gets in: collector -> event log -> micro-batches -> lake."""
