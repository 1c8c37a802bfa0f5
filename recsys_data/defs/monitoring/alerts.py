"""The alerts sensor: evaluates freshness, checks and runs, and reports what changed.

Data flow: Dagster's own records -> conditions -> `alerts.State`, which is the sensor's cursor -> notifiers.
A notifier that fails stops nothing: the tick reports it, and its alerts are sent again. Freshness is
Dagster's own evaluation of the policies in the contracts; a check counts by its latest completed evaluation; a job is
bad from a run that failed until one that succeeds, whatever is started by hand counting by what it selects.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
import msgspec

from recsys_data.defs.dagster_private import AssetCheckExecutionRecord, BaseAssetGraph, FreshnessState
from recsys_data.errors import Transient
from recsys_data.logs import configure
from recsys_data.monitoring.alerts.incidents import (
    Condition,
    Severity,
    State,
    delivered,
    observed,
    summary,
    undelivered,
    without_others,
)
from recsys_data.monitoring.alerts.notifiers import Notifier, moment, notifiers_of
from recsys_data.settings import Settings

INTERVAL_SECONDS = 30
# Runs are read twice, because they are recorded by other processes, with clocks of their own.
OVERLAP_SECONDS = 60.0
# Of a check, so that a message stays one that is read.
MOST_FACTS = 12
MOST_RUNS = 1000
BY_HAND = "__ASSET_JOB"
SELECTED_SHOWN = 5
STALE: dict[FreshnessState, Severity] = {FreshnessState.FAIL: "error", FreshnessState.WARN: "warning"}
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends one alert when a dataset goes stale or a check or a job fails, and one when it recovers: to the "
    "log and, with RECSYS_DATA_ALERT_URL, to a webhook. Starts no run.",
)
def alerts_sensor(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SkipReason:
    assert context.repository_def is not None
    configure(settings, "recsys_data")
    graph = context.repository_def.asset_graph
    before = msgspec.json.decode(context.cursor, type=State) if context.cursor else State()
    state = evaluated(before, context.instance, graph, time.time())
    state, said = notify(state, notifiers_of(settings), time.time())
    context.update_cursor(msgspec.json.encode(state).decode())
    for line in said:
        # So that the tick's own log in the UI shows it too.
        context.log.info(line)
    bad = ", ".join(sorted(one.subject for one in state.incidents.values()))
    return dg.SkipReason("; ".join([*said, f"bad now: {bad}" if bad else "all is well"]))


def evaluated(state: State, instance: dg.DagsterInstance, graph: BaseAssetGraph, now: float) -> State:
    """The state after an evaluation of Dagster's records; runs that ended before the first one are ignored."""
    watched = [key for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy]
    checks = list(graph.asset_check_keys)
    state = without_others(state, "freshness", [key.to_user_string() for key in watched])
    state = without_others(state, "check", [check_subject(key) for key in checks])
    since = now if state.runs_until is None else state.runs_until
    conditions = [*freshness(instance, watched), *evaluations(instance, checks), *jobs(instance, since)]
    return msgspec.structs.replace(observed(state, conditions, now), runs_until=now)


def notify(state: State, notifiers: Sequence[Notifier], now: float) -> tuple[State, list[str]]:
    """Send each notifier its undelivered alerts; the state after that, and what happened."""
    names = {notifier.name for notifier in notifiers}
    state = msgspec.structs.replace(
        state, notified={name: one for name, one in state.notified.items() if name in names}
    )
    said = []
    for notifier in notifiers:
        alerts = undelivered(state, notifier.name, now)
        if not alerts:
            continue
        try:
            notifier.send(*summary(alerts))
        except Transient as error:
            said.append(str(error))
        else:
            state = delivered(state, notifier.name)
            said.append(f"{len(alerts)} alerts sent to {notifier.name}")
    return state, said


def freshness(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> Iterable[Condition]:
    """Whether datasets are fresh; nothing about those that Dagster has not judged, or cannot."""
    for key, record in instance.get_freshness_state_records(keys).items():
        state = record.freshness_state
        if state in (FreshnessState.UNKNOWN, FreshnessState.NOT_APPLICABLE):
            continue
        name, at = key.to_user_string(), record.updated_at.timestamp()
        message = f"{name} is stale since {moment(at)}: nothing new was stored within the time its contract gives."
        yield Condition("freshness", name, STALE.get(state), message, f"{state.value} {at}", at)


def evaluations(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Iterable[Condition]:
    """How checks ended last; one that is running counts by the evaluation before."""
    for key, summarised in instance.event_log_storage.get_asset_check_summary_records(keys).items():
        record = summarised.last_completed_check_execution_record
        if record is not None:
            severity, message = _judged(key, record)
            yield Condition("check", check_subject(key), severity, message, str(record.id), record.create_timestamp)


def check_subject(key: dg.AssetCheckKey) -> str:
    """How alerts name a check."""
    return f"{key.asset_key.to_user_string()}:{key.name}"


def _judged(key: dg.AssetCheckKey, record: AssetCheckExecutionRecord) -> tuple[Severity | None, str]:
    event = record.event.dagster_event if record.event else None
    evaluation = event.event_specific_data if event else None
    asset = key.asset_key.to_user_string()
    if not isinstance(evaluation, dg.AssetCheckEvaluation):
        return "error", f"Check {key.name} of {asset} could not be run; see run {record.run_id}."
    if evaluation.passed:
        return None, ""
    # Numbers only: texts may hold what rows hold.
    facts = [
        f"{name} {value.value:,}"
        for name, value in evaluation.metadata.items()
        if isinstance(value, (dg.IntMetadataValue, dg.FloatMetadataValue)) and value.value is not None
    ]
    numbers = f" ({', '.join(facts[:MOST_FACTS])})" if facts else ""
    severity: Severity = "error" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning"
    return severity, f"Check {key.name} of {asset} failed{numbers}; see run {record.run_id}."


def jobs(instance: dg.DagsterInstance, since: float) -> Iterable[Condition]:
    """How jobs ended that ended since, oldest first: of several runs of a job the last one counts."""
    after = datetime.fromtimestamp(since - OVERLAP_SECONDS, UTC)
    records = instance.get_run_records(dg.RunsFilter(statuses=ENDED, updated_after=after), limit=MOST_RUNS)
    ended = sorted((record for record in records if (record.end_time or 0) >= after.timestamp()), key=_ended)
    last = {run_subject(record.dagster_run): record for record in ended}
    for subject, record in last.items():
        failed = record.dagster_run.status == dg.DagsterRunStatus.FAILURE
        message = _failure(instance, record.dagster_run) if failed else ""
        severity: Severity | None = "error" if failed else None
        yield Condition("run", subject, severity, message, record.dagster_run.run_id, _ended(record))


def _ended(record: dg.RunRecord) -> float:
    return record.end_time or 0.0


def run_subject(run: dg.DagsterRun) -> str:
    """How alerts name what a run does: its job or, for one that was started by hand, what it selects."""
    if run.job_name != BY_HAND or not run.asset_selection:
        return run.job_name
    names = sorted(key.to_user_string() for key in run.asset_selection)
    more = f" and {len(names) - SELECTED_SHOWN} more" if len(names) > SELECTED_SHOWN else ""
    return ", ".join(names[:SELECTED_SHOWN]) + more


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What Dagster says of the end of a run, without the error itself, which may hold what must not be sent."""
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    event = failures[-1].dagster_event if failures else None
    said = f" {event.message}" if event and event.message else ""
    return f"Run {run.run_id} of {run_subject(run)} failed.{said}"
