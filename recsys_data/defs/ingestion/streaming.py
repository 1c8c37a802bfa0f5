"""Ingestion as Dagster sees it: the draining asset, the sensor that starts it, and what is told about it.

Data flow: `event_log` (external) -> `event_stream` (one op for all stream datasets) -> lake.
Run alone: `dagster asset materialize --select interactions --partition 2026-11-22 -m recsys_data.definitions`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.contracts import Contract, Kind
from recsys_data.days import day_key
from recsys_data.defs.asset_specs import asset_spec
from recsys_data.defs.ingestion.reporting import Gathered, Reporter, day_facts, rejections, sample, wanted_days
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.consumer_lease import (
    ConsumerBusy,
    ConsumerRun,
    decide,
    hold_lease,
    lease_holder,
    standby_waits,
)
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.ingestion.streaming.rejected import summary
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.manifest_stats import DayStats
from recsys_data.storage.tables import Lake

EVENT_LOG = dg.AssetKey("event_log")
DRAIN = "drain_event_log"
STARTED_BY = {"recsys_data/started_by": "event_log_sensor"}
OBSERVE_SECONDS = 60.0
Metadata = dict[str, Any]


class DrainConfig(dg.Config):
    """How a run drains. Without a budget it stops when nothing waits, and then makes its days compact."""

    budget_seconds: float | None = None
    idle_seconds: float = 0.0
    wait_seconds: float = 60.0


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """Assets, job and sensor of the stream datasets."""
    stream = {name: contract for name, contract in contracts.items() if contract.is_stream}
    log = dg.AssetSpec(
        EVENT_LOG,
        description="The message queue: native events, one a line, as the collector and importers appended them.",
        group_name="sources",
        kinds={"queue"},
    )

    @dg.multi_asset(
        name="event_stream",
        specs=[asset_spec(contract, settings, [EVENT_LOG]) for contract in stream.values()],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def event_stream(
        context: dg.AssetExecutionContext,
        config: DrainConfig,
        event_log: dg.ResourceParam[EventLog],
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        duckdb: DuckDBResource,
    ):
        with canceled_when_stopped(context):
            yield from _drained(context, config, event_log, lake, settings, duckdb)

    job = dg.define_asset_job(
        DRAIN,
        selection=dg.AssetSelection.assets(*stream).without_checks(),
        description="Reads the event log into the lake for a limited time; started by `event_log_sensor`.",
        tags={"dagster/max_runtime": str(settings.drain_seconds + settings.idle_seconds + 600)},
    )
    return dg.Definitions(assets=[log, event_stream], jobs=[job], sensors=[_sensor(job, list(stream), contracts)])


def _drained(
    context: dg.AssetExecutionContext,
    config: DrainConfig,
    log: EventLog,
    lake: Lake,
    settings: Settings,
    duckdb: DuckDBResource,
) -> Iterator[dg.AssetMaterialization | dg.MaterializeResult]:
    """Drain, telling of touched days as they become visible, and of the run's own days in any case."""
    from recsys_data.ingestion.streaming.consumer import Until, consume, wait_until_stored
    from recsys_data.storage.maintenance.compaction import compact_day

    try:
        days = wanted_days(context.partition_keys, settings.first_day)
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    selected = [key.to_user_string() for key in context.selected_asset_keys]
    reporter = Reporter()
    ends = log.end_offsets()
    by_hand = config.budget_seconds is None
    try:
        with hold_lease(settings, 0 if by_hand else config.wait_seconds, config.budget_seconds):
            for flushed in consume(log, lake, settings, Until(config.idle_seconds, config.budget_seconds)):
                reporter.add(flushed)
                if reporter.is_due:
                    yield from _touched(lake, log, reporter.take())
    except ConsumerBusy as busy:
        context.log.info(f"{busy} Waiting until what the log held when this run began is stored.")
        if by_hand:
            wait_until_stored(lake, ends, config.wait_seconds)
    gathered = reporter.take(everything=True)
    yield from _touched(lake, log, gathered)
    if by_hand:
        for name in selected:
            for day in days:
                context.log.info(f"{name} {day_key(day)}: {compact_day(lake.table(name), day)} files became one.")
    # Without a result for what was selected, its partitions stay missing and checks downstream are skipped.
    for name in selected:
        metadata = _result_metadata(lake, log, gathered, name, days, duckdb)
        yield dg.MaterializeResult(asset_key=name, metadata=metadata)


def _touched(lake: Lake, log: EventLog, gathered: Gathered) -> Iterator[dg.AssetMaterialization]:
    """One event per dataset and day that got rows."""
    for name in gathered.rows:
        touched = gathered.newest_days(name)
        facts = day_facts(lake, name) if touched else {}
        # The newest day last: what is told last is what the UI shows first.
        for day in reversed(touched):
            metadata = _day_metadata(facts, [day]) | {"rows added": gathered.rows[name][day]}
            if day == touched[0]:
                metadata |= _stream_metadata(lake, log, gathered)
            yield dg.AssetMaterialization(name, partition=day_key(day), metadata=metadata)


def _result_metadata(
    lake: Lake, log: EventLog, gathered: Gathered, name: str, days: list[int], duckdb: DuckDBResource
) -> Metadata:
    facts = day_facts(lake, name)
    metadata = _day_metadata(facts, days) | _stream_metadata(lake, log, gathered)
    filled = [day for day in days if day in facts]
    if filled:
        with duckdb.get_connection() as connection:
            metadata["sample"] = dg.MetadataValue.md(sample(connection, lake, name, max(filled)))
    if lake.contracts[name].kind is Kind.DEAD_LETTERS:
        metadata["by reason"] = rejections(summary(lake, origins=[name]))
    return metadata


def _day_metadata(facts: Mapping[int, DayStats], days: list[int]) -> Metadata:
    present = [facts[day] for day in days if day in facts]
    return {
        "dagster/row_count": sum(stats.rows for stats in facts.values()),
        "dagster/partition_row_count": sum(stats.rows for stats in present),
        "files": sum(stats.files for stats in present),
    }


def _stream_metadata(lake: Lake, log: EventLog, gathered: Gathered) -> Metadata:
    from recsys_data.ingestion.streaming.lag import lag_of

    metadata: Metadata = {
        "events waiting": lag_of(log, lake).events,
        "events read": gathered.read,
        "accepted": gathered.accepted,
        "duplicates": gathered.duplicates,
        "dead letters": gathered.dead_letters,
        "commits": gathered.commits,
        "commit seconds": round(gathered.seconds, 3),
        "positions": dg.MetadataValue.json({str(p): at for p, at in positions_of(lake).items()}),
    }
    if gathered.p95 is not None:
        metadata |= {"received to queryable p50 (s)": gathered.p50, "received to queryable p95 (s)": gathered.p95}
    return metadata


def _sensor(job, names: list[str], contracts: Mapping[str, Contract]) -> dg.SensorDefinition:
    beat_seconds = min(contracts[name].latency.total_seconds() for name in names) / 3

    @dg.sensor(
        name="event_log_sensor",
        job=job,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps one drain run going: starts it when events are waiting and hands over to a new one before "
        "the time limit.",
    )
    def event_log_sensor(
        context: dg.SensorEvaluationContext,
        event_log: dg.ResourceParam[EventLog],
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
    ) -> dg.SensorResult:
        from recsys_data.ingestion.streaming.lag import lag_of

        now = time.time()
        cursor = json.loads(context.cursor or "{}")
        lag = lag_of(event_log, lake).events
        holder = lease_holder(settings)
        decision = decide(now, lag, holder, standby_waits(settings), _runs(context.instance, now))
        told: list[dg.AssetMaterialization | dg.AssetObservation] = []
        if now - cursor.get("observed", 0) >= OBSERVE_SECONDS:
            cursor["observed"] = now
            told.append(_observation(event_log, lake, lag))
        # Nothing to do is not a reason to be stale: the freshness policy asks whether the pipeline keeps up.
        if lag == 0 and holder is None and now - cursor.get("beat", 0) >= beat_seconds:
            cursor["beat"] = now
            told += _heartbeats(lake, [*names, *_current_views(lake)])
        requests = [_request(settings)] if decision.start else []
        skip = None if decision.start else decision.why
        return dg.SensorResult(requests, skip_reason=skip, cursor=json.dumps(cursor), asset_events=told)

    return event_log_sensor


def _runs(instance: dg.DagsterInstance, now: float) -> list[ConsumerRun]:
    records = instance.get_run_records(dg.RunsFilter(tags=STARTED_BY), limit=8)
    return [
        ConsumerRun(
            age=now - record.create_timestamp.timestamp(),
            ended=now - record.end_time if record.dagster_run.is_finished and record.end_time else None,
            failed=record.dagster_run.status == dg.DagsterRunStatus.FAILURE,
            begun=now - record.start_time if record.start_time else None,
        )
        for record in records
    ]


def _request(settings: Settings) -> dg.RunRequest:
    config = DrainConfig(
        budget_seconds=settings.drain_seconds,
        idle_seconds=min(settings.idle_seconds, settings.drain_seconds / 2),
    )
    return dg.RunRequest(partition_key=_today(), tags=STARTED_BY, run_config=dg.RunConfig(ops={"event_stream": config}))


def _observation(log: EventLog, lake: Lake, lag: int) -> dg.AssetObservation:
    positions = positions_of(lake)
    behind = {str(p): {"end": end, "stored": positions.get(p, 0)} for p, end in log.end_offsets().items()}
    return dg.AssetObservation(EVENT_LOG, metadata={"events waiting": lag, "offsets": dg.MetadataValue.json(behind)})


def _current_views(lake: Lake) -> list[str]:
    """The feature views of streams that are what their sources say."""
    from recsys_data.contracts.features.datasets import stream_of
    from recsys_data.features.materialize import stale_days

    views = {name: one.view for name, one in lake.contracts.items() if one.kind is Kind.FEATURE_VIEW and one.view}
    return [name for name, view in views.items() if stream_of(view) and not stale_days(lake, name)]


def _heartbeats(lake: Lake, names: list[str]) -> list[dg.AssetMaterialization]:
    """Of no partition, because none got rows: otherwise what is made of today's would be made again."""
    facts = {name: day_facts(lake, name) for name in names}
    return [
        dg.AssetMaterialization(
            name,
            metadata={
                "dagster/row_count": sum(stats.rows for stats in facts[name].values()),
                "up to date": "no events are waiting",
            },
        )
        for name in names
    ]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
