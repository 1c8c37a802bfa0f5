"""The batch side as Dagster sees it: a snapshot a day of each dataset, its history, and the schedule that takes them.

Data flow: source systems (external assets) -> `NAME`, `NAME_rejected` -> `NAME_history`; one op a dataset.
Run alone: `dagster asset materialize --select item_catalog --partition 2011-01-17 -m recsys_data.definitions`.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.contracts.model import history_name, rejected_name
from recsys_data.contracts.servers import Server
from recsys_data.days import day_number
from recsys_data.defs.asset_specs import asset_spec, daily_partitions
from recsys_data.defs.ingestion.arrivals import landed_days_sensor, source_key
from recsys_data.defs.ingestion.reporting import sample
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.ingestion.batch.due import due_day, missing_days, taken_on
from recsys_data.ingestion.batch.history.update import Brought, bring_up_to_date, overlaps
from recsys_data.ingestion.batch.quarantine import held_back
from recsys_data.ingestion.batch.snapshot import accept_held, refused_rows, stored_days, take, takeable_days
from recsys_data.ingestion.batch.taken import Taken
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

MISSING_SHOWN = 30
RETRY_SECONDS = 30
Metadata = dict[str, Any]
Told = dg.AssetMaterialization | dg.AssetCheckResult


class SnapshotConfig(dg.Config):
    """How snapshots are taken.

    Attributes:
        accept: publish what was held back of the days, or if nothing was, take them however much they changed.
    """

    accept: bool = False


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """Assets, jobs and schedules of the snapshot datasets."""
    snapshots = [contract for contract in contracts.values() if contract.is_snapshot]
    if not snapshots:
        return dg.Definitions()
    found = [_dataset(contract, contracts, settings) for contract in snapshots]
    return dg.Definitions.merge(*found, dg.Definitions(sensors=[landed_days_sensor(snapshots)]))


def _dataset(contract: Contract, contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    name = contract.name
    partitions = daily_partitions(settings.first_day)
    sources = [_source(contract, server) for server in contract.servers]
    keys = [source.key for source in sources]
    related = [dg.AssetKey(reference.dataset) for reference in contract.references]

    @dg.multi_asset(
        name=f"{name}_snapshot",
        specs=[
            asset_spec(contract, partitions, keys + related),
            asset_spec(contracts[rejected_name(name)], partitions, keys),
            asset_spec(contracts[history_name(name)], partitions, [dg.AssetKey(name)]),
        ],
        check_specs=_check_specs(contract),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        # A source that cannot be read now is tried again; what a user has to mend is not.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=RETRY_SECONDS),
    )
    def snapshot(
        context: dg.AssetExecutionContext,
        config: SnapshotConfig,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ):
        with canceled_when_stopped(context):
            yield from _taken(context, config, lake, settings, name)

    job = dg.define_asset_job(
        f"take_{name}",
        selection=dg.AssetSelection.assets(name, rejected_name(name), history_name(name)),
        description=f"Takes the snapshot of {name} of a day, and brings its history up to date.",
        tags={"dagster/max_runtime": str(12 * 3600)},
    )
    return dg.Definitions(assets=[*sources, snapshot], jobs=[job], schedules=[_schedule(contract, job)])


def _source(contract: Contract, server: Server) -> dg.AssetSpec:
    return dg.AssetSpec(
        source_key(contract, server),
        description=f"Where {contract.name} comes from: {server.table or server.query or 'files'}.",
        group_name="sources",
        kinds={"source"},
    )


def _check_specs(contract: Contract) -> list[dg.AssetCheckSpec]:
    name = contract.name
    return [
        dg.AssetCheckSpec(
            "change_within_limits",
            asset=name,
            blocking=True,
            description="No snapshot is held back for having lost or changed more than the contract allows, which "
            "leaves the last good one in place until somebody accepts it.",
        ),
        dg.AssetCheckSpec(
            "days_complete",
            asset=name,
            description="The day that is due is there. Days between the first and the last that are not are listed.",
        ),
        dg.AssetCheckSpec(
            "rows_accepted", asset=name, description="No row of the newest day was refused; the reasons are counted."
        ),
        dg.AssetCheckSpec(
            "periods_do_not_overlap",
            asset=history_name(name),
            description="At any moment at most one state of a key holds.",
        ),
    ]


def _schedule(contract: Contract, job) -> dg.ScheduleDefinition:
    schedule = contract.schedule
    assert schedule is not None

    @dg.schedule(
        name=f"{contract.name}_schedule",
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        job=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Takes the day's snapshot of {contract.name}; it is due by {schedule.deadline}.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = taken_on(contract, context.scheduled_execution_time)
        return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())

    return daily


def _taken(
    context: dg.AssetExecutionContext, config: SnapshotConfig, lake: Lake, settings: Settings, name: str
) -> Iterator[Told]:
    """Take the run's days, tell of each as it is published, and fail at the end for what was held back."""
    contract = lake.contracts[name]
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    results: list[Taken] = []
    try:
        if selected & {name, rejected_name(name)}:
            for day in _days(context, contract, settings):
                context.log.info(f"Taking {name} of {day}.")
                taken = _take(lake, settings, name, day, config.accept)
                results.append(taken)
                if taken.held:
                    context.log.error(_held(taken))
                else:
                    yield from _published(lake, taken, selected)
        if history_name(name) in selected:
            yield from _history(context, lake, settings, name)
    except RecsysDataError as error:
        raise dg.Failure(str(error), allow_retries=not isinstance(error, UserError)) from None
    yield from _checks(context, lake, settings, contract)
    held = [taken for taken in results if taken.held]
    if held:
        raise dg.Failure("\n".join(map(_held, held)), allow_retries=False)


def _days(context: dg.AssetExecutionContext, contract: Contract, settings: Settings) -> list[date]:
    """The run's days; of several, those that the sources have, for a day without a state is missing, not empty."""
    asked = [date.fromisoformat(key) for key in context.partition_keys]
    if len(asked) == 1:
        return asked
    there = takeable_days(contract, settings)
    days = [day for day in asked if day in set(there)]
    context.log.info(f"The sources have {len(days)} of the {len(asked)} days.")
    if not days:
        raise UserError(
            f"The sources of {contract.name} have none of the {len(asked)} days from {asked[0]} to {asked[-1]}. "
            + (f"They have {there[0]} to {there[-1]}." if there else "They have none at all.")
        )
    return days


def _take(lake: Lake, settings: Settings, name: str, day: date, accept: bool) -> Taken:
    if accept:
        try:
            return accept_held(lake, settings, name, day)
        except UserError:
            # Nothing was held back of that day: it is taken now, and accepted in advance.
            return take(lake, settings, name, day, accept=True)
    return take(lake, settings, name, day)


def _held(taken: Taken) -> str:
    return (
        f"The snapshot of {taken.name} of {taken.day} was held back: {taken.held}. The last good one stays. If it is "
        "right, accept it: run this partition again with the config `accept: true`, or "
        f"`recsys-data snapshot accept {taken.name} {taken.day}`."
    )


def _published(lake: Lake, taken: Taken, selected: set[str]) -> Iterator[Told]:
    name, day = taken.name, taken.day.isoformat()
    if name in selected:
        compared = taken.compared
        metadata: Metadata = {
            "dagster/partition_row_count": compared.rows,
            "as of": taken.as_of.isoformat(),
            "new": compared.new,
            "changed": compared.changed,
            "gone": compared.lost,
            "refused": sum(taken.rejected.values()),
            "rows by source": dg.MetadataValue.json(taken.sources),
            "seconds": round(taken.seconds, 2),
            "sample": dg.MetadataValue.md(sample(lake, name, day_number(day))),
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


def _history(context: dg.AssetExecutionContext, lake: Lake, settings: Settings, name: str) -> Iterator[Told]:
    """Bring the history up to date; every stored day of the run, and every day that was applied, is told."""
    brought = bring_up_to_date(lake, name, settings.staging_dir / history_name(name))
    context.log.info(f"{len(brought.days)} days were applied to the history of {name} in {brought.seconds:.1f} s.")
    stored = {day.isoformat() for day in stored_days(lake, name)}
    own = [date.fromisoformat(key) for key in context.partition_keys if key in stored]
    for day in sorted({*own, *brought.days}):
        if day.isoformat() in stored:
            yield dg.AssetMaterialization(
                history_name(name), partition=day.isoformat(), metadata=_history_metadata(brought, day)
            )


def _history_metadata(brought: Brought, day: date) -> Metadata:
    opened, closed = brought.by_day.get(day, (0, 0))
    return {
        "dagster/row_count": brought.rows,
        "rows that hold": brought.current,
        "opened by the day": opened,
        "closed by the day": closed,
    }


def _checks(
    context: dg.AssetExecutionContext, lake: Lake, settings: Settings, contract: Contract
) -> Iterator[dg.AssetCheckResult]:
    """Judge what is stored and held back now, so that checks can be run by themselves too."""
    name = contract.name
    held = held_back(settings, name)
    due, missing = due_day(contract, datetime.now(UTC)), missing_days(lake, contract)
    stored = stored_days(lake, name)
    refused = refused_rows(lake, name, stored[-1]) if stored else {}
    found = {
        "change_within_limits": (not held, {"held back": dg.MetadataValue.json({str(t.day): t.held for t in held})}),
        "days_complete": (
            due in stored,
            {
                "due": due.isoformat(),
                "newest": stored[-1].isoformat() if stored else "none",
                "missing between": len(missing),
                "missing days": dg.MetadataValue.json([str(day) for day in missing[-MISSING_SHOWN:]]),
            },
        ),
        "rows_accepted": (
            not refused,
            {"refused": sum(refused.values()), "by reason": dg.MetadataValue.json(refused)},
        ),
    }
    wanted = {(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys}
    for check, (passed, metadata) in found.items():
        if (name, check) in wanted:
            severity = dg.AssetCheckSeverity.ERROR if check == "change_within_limits" else dg.AssetCheckSeverity.WARN
            yield dg.AssetCheckResult(
                passed=passed, asset_key=name, check_name=check, severity=severity, metadata=metadata
            )
    if (history_name(name), "periods_do_not_overlap") in wanted:
        count = overlaps(lake, name)
        yield dg.AssetCheckResult(
            passed=count == 0,
            asset_key=history_name(name),
            check_name="periods_do_not_overlap",
            metadata={"overlaps": count},
        )
