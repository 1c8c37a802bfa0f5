"""The Dagster code location: loads the folder `defs`; decides nothing."""

from pathlib import Path

import dagster as dg

import recsys_data.defs


@dg.definitions
def defs() -> dg.Definitions:
    """Everything that Dagster runs and shows, as the environment's settings and contracts say."""
    folder = Path(*recsys_data.defs.__path__)
    tree = dg.ComponentTree.from_module(recsys_data.defs, project_root=folder.parents[1])
    # Without a path Dagster also imports each package with components that is installed, boto3 among them, in each run.
    return dg.Definitions.merge(dg.Definitions(component_tree=tree), tree.build_defs(folder))
