"""The batch side as Dagster sees it: a snapshot a day of each dataset, its history, and the schedule that takes them.

Data flow: source systems (external assets) -> `NAME`, `NAME_rejected` -> `NAME_history`; one op a dataset.
Run alone: `dagster asset materialize --select item_catalog --partition 2011-01-17 -m recsys_data.definitions`.
"""

from collections.abc import Mapping

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.contracts import Contract
from recsys_data.contracts.model import history_name, rejected_name
from recsys_data.contracts.servers import Server
from recsys_data.defs.asset_specs import asset_spec
from recsys_data.defs.automation import after_snapshot
from recsys_data.defs.ingestion.arrivals import landed_days_sensor, source_key
from recsys_data.defs.monitoring.checks import snapshot_checks
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.ingestion.first_day import first_partition_day
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

RETRY_SECONDS = 30


class SnapshotConfig(dg.Config):
    """How snapshots are taken.

    Attributes:
        accept: publish the snapshots of the days that are on hold or, if there are none, take the days however much
            they changed.
    """

    accept: bool = False


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """Assets, jobs and schedules of the snapshot datasets."""
    snapshots = [contract for contract in contracts.values() if contract.is_snapshot]
    if not snapshots:
        return dg.Definitions()
    found = [_dataset(contract, contracts, settings) for contract in snapshots]
    return dg.Definitions.merge(
        *found, dg.Definitions(sensors=[landed_days_sensor(snapshots, first_partition_day(settings))])
    )


def _dataset(contract: Contract, contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    name = contract.name
    sources = [_source(contract, server) for server in contract.servers]
    keys = [source.key for source in sources]

    @dg.multi_asset(
        name=f"{name}_snapshot",
        specs=[
            asset_spec(contract, settings, keys),
            asset_spec(contracts[rejected_name(name)], settings, keys),
            asset_spec(contracts[history_name(name)], settings, [dg.AssetKey(name)]).replace_attributes(
                automation_condition=after_snapshot()
            ),
        ],
        check_specs=[check.spec() for check in snapshot_checks(contract)],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        # A source that cannot be read now is tried again, but not what a user has to fix.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=RETRY_SECONDS),
    )
    def snapshot(
        context: dg.AssetExecutionContext,
        config: SnapshotConfig,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        duckdb: DuckDBResource,
    ):
        from recsys_data.defs.ingestion.snapshot_run import run

        with canceled_when_stopped(context):
            yield from run(context, config.accept, lake, settings, duckdb, name)

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
        from recsys_data.ingestion.batch.partitions import snapshot_date_of

        day = snapshot_date_of(contract, context.scheduled_execution_time)
        return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())

    return daily
