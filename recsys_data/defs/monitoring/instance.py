"""Dagster's own records, kept small: old runs are deleted.

A run, its events and its output go together. Ticks are limited by `retention` in dagster.yaml. A run stays while it
holds the newest event of a partition, for without it Dagster would take the partition for missing.
Run alone: `dagster asset materialize --select dagster_upkeep -m recsys_data.definitions`.
"""

import itertools
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from recsys_data.defs.run_liveness import remove_old_marks
from recsys_data.defs.storage.maintenance import GROUP
from recsys_data.settings import Settings

RUNS_KEPT = timedelta(days=30)
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# One run's work; a run takes some milliseconds.
MOST = 5000
PAGE = 100


@dg.asset(
    group_name=GROUP,
    kinds={"dagster"},
    description=f"Deletes runs that ended {RUNS_KEPT.days} days ago, with their events and output, except those that "
    "hold the latest event of a partition.",
)
def dagster_upkeep(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    began = datetime.now(UTC)
    remove_old_marks(settings, context.instance)
    deleted, kept = prune_runs(context.instance, began - RUNS_KEPT)
    seconds = (datetime.now(UTC) - began).total_seconds()
    return dg.MaterializeResult(metadata={"runs deleted": deleted, "old runs kept": kept, "seconds": seconds})


def prune_runs(instance: dg.DagsterInstance, before: datetime) -> tuple[int, int]:
    """Delete runs that were created and ended before `before`; returns how many, and how many old ones were kept.

    The oldest go first, at most `MOST` of them; a crash leaves the rest to the next call.
    """
    needed = _needed_runs(instance)
    filters = dg.RunsFilter(statuses=ENDED, created_before=before, updated_before=before)
    cursor, deleted, kept = None, 0, 0
    while records := instance.get_run_records(filters, limit=PAGE, cursor=cursor, ascending=True):
        for run_id in (record.dagster_run.run_id for record in records):
            if run_id in needed:
                cursor, kept = run_id, kept + 1
            elif deleted < MOST:
                _delete(instance, run_id)
                deleted += 1
            else:
                return deleted, kept
    return deleted, kept


def _needed_runs(instance: dg.DagsterInstance) -> set[str]:
    """Runs that hold the newest materialization of a partition, or the newest event of an asset."""
    needed: set[str] = set()
    for record in instance.get_asset_records():
        entry = record.asset_entry
        newest = (entry.last_materialization_record, entry.last_observation_record)
        needed.update(event.run_id for event in newest if event)
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(
            entry.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = iter(by_partition.values())
        while page := list(itertools.islice(ids, PAGE)):
            wanted = dg.AssetRecordsFilter(entry.asset_key, storage_ids=page)
            needed.update(event.run_id for event in instance.fetch_materializations(wanted, limit=PAGE).records)
    return needed


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, last of all its record: a crash before leaves it to the next call."""
    shutil.rmtree(Path(instance.storage_directory()) / run_id, ignore_errors=True)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    # Dagster empties the file that SQLite has for each run, and leaves it.
    shard = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{shard(run_id)}{suffix}").unlink(missing_ok=True)
