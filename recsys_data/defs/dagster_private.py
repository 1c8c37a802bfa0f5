"""The names of Dagster that it does not publish, in one place, with the version that they were read from."""

import dagster
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

__all__ = [
    "AssetCheckExecutionRecord",
    "BaseAssetGraph",
    "CheckRunHealthResult",
    "FreshnessState",
    "WorkerStatus",
]

VERSION = "1.13."

if not dagster.__version__.startswith(VERSION):
    raise ImportError(
        f"Dagster is {dagster.__version__}, but {__name__} imports private names of Dagster {VERSION}x. "
        'Install "dagster>=1.13,<1.14", or review the names here and raise VERSION.'
    )
