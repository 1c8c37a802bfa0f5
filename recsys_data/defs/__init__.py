"""Everything that Dagster sees: the only package that imports it.

One folder per stage; each module has `definitions()`, which `recsys_data.definitions` merges.
"""
