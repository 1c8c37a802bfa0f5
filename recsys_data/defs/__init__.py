"""Everything that Dagster sees: the only package that imports it.

`recsys_data.definitions` loads this folder: each module's own definitions, and the component of each `defs.yaml`.
"""
