"""The seam to PyIceberg: catalog, file IO, statistics of manifests, patches."""
