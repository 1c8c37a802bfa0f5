"""Retention as Dagster sees it: an asset that is made every hour with the rest of the upkeep.

Run alone: `dagster asset materialize --select retention -m recsys_data.definitions`.
"""

from datetime import UTC, datetime

import dagster as dg

from recsys_data.defs.markdown import table
from recsys_data.defs.storage.maintenance import GROUP
from recsys_data.errors import RecsysDataError
from recsys_data.ingestion.batch.retention import Expired, expire
from recsys_data.storage.tables import Lake


@dg.asset(
    group_name=GROUP,
    kinds={"iceberg"},
    description="Deletes days that are older than the `retention` of their contract. Histories stay.",
)
def retention(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
    now = datetime.now(UTC)
    done: dict[str, Expired] = {}
    failed: list[str] = []
    for name in lake.contracts:
        # What is wrong with one table is not a reason to leave the others.
        try:
            done[name] = expire(lake, name, now)
        except RecsysDataError as error:
            failed.append(f"{name}: {error}")
        else:
            context.log.info(f"{name}: {done[name]}")
    rows = [[name, one.kept_since or "the beginning", one.days, one.rows] for name, one in done.items()]
    metadata = {
        "days expired": sum(one.days for one in done.values()),
        "rows expired": sum(one.rows for one in done.values()),
        "by dataset": dg.MetadataValue.md(table(["dataset", "kept since", "days", "rows"], rows)),
    }
    if failed:
        raise dg.Failure("\n".join(failed), metadata=metadata, allow_retries=False)
    return dg.MaterializeResult(metadata=metadata)
