"""Table maintenance: compaction and removal of orphan files."""
