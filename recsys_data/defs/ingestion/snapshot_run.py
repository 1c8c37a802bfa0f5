"""What a run of a snapshot dataset does: it takes the run's days, and updates the history from what is stored."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.contracts import Contract
from recsys_data.contracts.model import history_name, rejected_name
from recsys_data.days import day_number
from recsys_data.defs.ingestion.reporting import sample
from recsys_data.defs.monitoring.checks import snapshot_checks
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.ingestion.batch.history.update import HistoryUpdate, refresh_history
from recsys_data.ingestion.batch.partitions import available_days, stored_days
from recsys_data.ingestion.batch.quarantine import SnapshotResult
from recsys_data.ingestion.batch.snapshot import accept_snapshot, take_snapshot
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

Metadata = dict[str, Any]
Event = dg.AssetMaterialization | dg.AssetCheckResult


def run(
    context: dg.AssetExecutionContext,
    accept: bool,
    lake: Lake,
    settings: Settings,
    duckdb: DuckDBResource,
    name: str,
) -> Iterator[Event]:
    """Take the run's days, report each as it is published, and fail at the end for snapshots on hold."""
    contract = lake.contracts[name]
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    results: list[SnapshotResult] = []
    try:
        if selected & {name, rejected_name(name)}:
            for day in _days(context, contract, settings):
                context.log.info(f"Taking {name} of {day}.")
                taken = _take(lake, settings, name, day, accept)
                results.append(taken)
                if taken.violation:
                    context.log.error(_held(taken))
                else:
                    yield from _published(lake, duckdb, taken, selected)
        if history_name(name) in selected:
            yield from _history(context, lake, settings, name)
    except RecsysDataError as error:
        raise dg.Failure(str(error), allow_retries=not isinstance(error, UserError)) from None
    for check in snapshot_checks(contract):
        if check.key in context.selected_asset_check_keys:
            yield check.result(lake, settings, duckdb)
    held = [taken for taken in results if taken.violation]
    if held:
        raise dg.Failure("\n".join(map(_held, held)), allow_retries=False)


def _days(context: dg.AssetExecutionContext, contract: Contract, settings: Settings) -> list[date]:
    """The run's days; of several, those that the sources have, because a day without a state is missing, not empty."""
    asked = [date.fromisoformat(key) for key in context.partition_keys]
    if len(asked) == 1:
        return asked
    there = available_days(contract, settings)
    days = [day for day in asked if day in set(there)]
    context.log.info(f"The sources have {len(days)} of the {len(asked)} days.")
    if not days:
        raise UserError(
            f"The sources of {contract.name} have none of the {len(asked)} days from {asked[0]} to {asked[-1]}. "
            + (f"They have {there[0]} to {there[-1]}." if there else "They have none at all.")
        )
    return days


def _take(lake: Lake, settings: Settings, name: str, day: date, accept: bool) -> SnapshotResult:
    if accept:
        try:
            return accept_snapshot(lake, settings, name, day)
        except UserError:
            # Nothing of that day is on hold: it is taken now, and accepted in advance.
            return take_snapshot(lake, settings, name, day, accept=True)
    return take_snapshot(lake, settings, name, day)


def _held(taken: SnapshotResult) -> str:
    return (
        f"The snapshot of {taken.name} of {taken.day} is on hold: {taken.violation}. The last good one stays "
        "published. If it is correct, accept it: run this partition again with the config `accept: true`, or "
        f"`recsys-data snapshot accept {taken.name} {taken.day}`."
    )


def _published(lake: Lake, duckdb: DuckDBResource, taken: SnapshotResult, selected: set[str]) -> Iterator[Event]:
    name, day = taken.name, taken.day.isoformat()
    if name in selected:
        compared = taken.compared
        with duckdb.get_connection() as connection:
            shown = sample(connection, lake, name, day_number(day))
        metadata: Metadata = {
            "dagster/partition_row_count": compared.rows,
            "as of": taken.as_of.isoformat(),
            "new": compared.new,
            "changed": compared.changed,
            "deleted": compared.lost,
            "rejected": sum(taken.rejected.values()),
            "rows by source": dg.MetadataValue.json(taken.sources),
            "seconds": round(taken.seconds, 2),
            "sample": dg.MetadataValue.md(shown),
        }
        if compared.previous_day:
            metadata["compared with"] = compared.previous_day.isoformat()
        yield dg.AssetMaterialization(name, partition=day, metadata=metadata)
    if rejected_name(name) in selected:
        yield dg.AssetMaterialization(
            rejected_name(name),
            partition=day,
            metadata={
                "dagster/partition_row_count": sum(taken.rejected.values()),
                "by reason": dg.MetadataValue.json(taken.rejected),
            },
        )


def _history(context: dg.AssetExecutionContext, lake: Lake, settings: Settings, name: str) -> Iterator[Event]:
    """Update the history; report each stored day of the run, and each day that was applied."""
    staging = settings.staging_dir / history_name(name)
    brought = refresh_history(lake, name, staging, settings.history_memory_mb * 1_000_000)
    context.log.info(f"{len(brought.days)} days were applied to the history of {name} in {brought.seconds:.1f} s.")
    stored = {day.isoformat() for day in stored_days(lake, name)}
    own = [date.fromisoformat(key) for key in context.partition_keys if key in stored]
    for day in sorted({*own, *brought.days}):
        if day.isoformat() in stored:
            yield dg.AssetMaterialization(
                history_name(name), partition=day.isoformat(), metadata=_history_metadata(brought, day)
            )


def _history_metadata(brought: HistoryUpdate, day: date) -> Metadata:
    opened, closed = brought.by_day.get(day, (0, 0))
    return {
        "dagster/row_count": brought.rows,
        "current rows": brought.current,
        "periods opened by the day": opened,
        "periods closed by the day": closed,
    }
