"""Upkeep of the lake as Dagster sees it: an asset that is made every hour, sooner when many files came.

Run alone: `dagster asset materialize --select lake_upkeep -m recsys_data.definitions`.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.defs.markdown import table
from recsys_data.errors import RecsysDataError
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from recsys_data.storage.maintenance.compaction import TableMaintenance

logger = logging.getLogger(__name__)

GROUP = "upkeep"
JOB = "upkeep"
TICKS = "*/10 * * * *"
# A run is recorded some seconds after its tick.
HOUR_SECONDS = 3600.0 - 300.0
# A busy table takes thousands of commits an hour, and each leaves files that whoever plans a query, or merges the
# manifests in a commit, goes through. This many come in ten minutes when late events spread over a month.
MANY_FILES = 5000
HEAD = [
    *("dataset", "files before", "after", "snapshots expired"),
    *("files deleted", "bytes freed", "to be deleted", "seconds"),
]


upkeep_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.groups(GROUP),
    description="Compacts tables and deletes what is no longer needed, in the lake and in Dagster's own storage. "
    "Reading and ingestion go on meanwhile.",
    tags={"dagster/max_runtime": str(6 * 3600)},
)


def last_run(instance: dg.DagsterInstance, job: str) -> dg.RunRecord | None:
    """The newest run of a job."""
    return next(iter(instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)), None)


@contextmanager
def canceled_when_stopped(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[None]:
    """Let a run whose process is asked to end, as when the platform is stopped, count as canceled.

    Dagster takes an end that was not asked of itself for a failure, of which alerts tell.
    """
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        context.instance.report_run_canceling(context.run, "The process of this run was asked to end.")
        raise


@dg.schedule(
    name="upkeep_schedule",
    job=upkeep_job,
    cron_schedule=TICKS,
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=f"Every hour, and after ten minutes in which the lake got {MANY_FILES:,} files.",
)
def upkeep_schedule(
    context: dg.ScheduleEvaluationContext, lake: dg.ResourceParam[Lake]
) -> dg.RunRequest | dg.SkipReason:
    from recsys_data.storage.maintenance.compaction import count_live_files

    last = last_run(context.instance, JOB)
    if last is None:
        return dg.RunRequest()
    if not last.dagster_run.is_finished:
        return dg.SkipReason("the last upkeep goes on")
    done = context.instance.get_latest_materialization_event(dg.AssetKey("lake_upkeep"))
    left = done.asset_materialization.metadata["files after"] if done and done.asset_materialization else None
    added = count_live_files(lake) - ((left.value or 0) if isinstance(left, dg.IntMetadataValue) else 0)
    if added < MANY_FILES and time.time() - last.create_timestamp.timestamp() < HOUR_SECONDS:
        return dg.SkipReason(f"upkeep ran less than an hour ago, and {added:,} files were added since")
    return dg.RunRequest()


@dg.asset(
    group_name=GROUP,
    kinds={"iceberg"},
    description="Compacts small files, expires old snapshots, and deletes unreferenced files (metadata after three "
    "hours, data files after a day). The rows stay as they are.",
)
def lake_upkeep(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult:
    with canceled_when_stopped(context):
        return _kept_up(context, lake)


def _kept_up(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    from recsys_data.storage.maintenance.compaction import maintain_table

    done: dict[str, TableMaintenance] = {}
    failed: list[str] = []
    for name in lake.contracts:
        if not lake.exists(name):
            continue
        # What is wrong with one table is not a reason to leave the others.
        try:
            done[name] = maintain_table(lake, name)
            context.log.info(f"{name}: {done[name]}")
            logger.info("Maintained.", extra={"dataset": name, **asdict(done[name])})
        except RecsysDataError as error:
            failed.append(f"{name}: {error}")
            logger.error("Upkeep failed: %s", error, extra={"dataset": name})
    if failed:
        raise dg.Failure("\n".join(failed), metadata=_metadata(done), allow_retries=False)
    return dg.MaterializeResult(metadata=_metadata(done))


def _metadata(done: "dict[str, TableMaintenance]") -> dict[str, Any]:
    rows = [
        [name, one.files_before, one.files_after, one.expired]
        + [one.orphans.removed, one.orphans.removed_bytes, one.orphans.waiting, round(one.seconds, 1)]
        for name, one in done.items()
    ]
    return {
        "files before": sum(one.files_before for one in done.values()),
        "files after": sum(one.files_after for one in done.values()),
        "snapshots expired": sum(one.expired for one in done.values()),
        "files deleted": sum(one.orphans.removed for one in done.values()),
        "bytes freed": sum(one.orphans.removed_bytes for one in done.values()),
        "bytes to be freed": sum(one.orphans.waiting_bytes for one in done.values()),
        "seconds": round(sum(one.seconds for one in done.values()), 1),
        "by dataset": dg.MetadataValue.md(table(HEAD, rows)),
    }
