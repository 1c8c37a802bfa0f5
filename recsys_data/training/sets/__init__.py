"""Training sets: declared in YAML, built from the lake with a manifest, and rebuilt to the same bytes."""
