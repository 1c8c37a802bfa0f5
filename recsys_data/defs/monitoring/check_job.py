"""When stream datasets are checked, and of which run that is told.

A drain's run takes minutes, in which checks of its own would show no result, and none would run when events stop,
which is what one of them is for. So a job checks, once for each drain and every hour while there is none. Dagster shows
a check's result as that of the latest materialization if it is told of the same run, and as none if it is told of
another and a newer materialization is there, which a drain has every half minute. So results are told of the drain.
"""

import json
import time
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.defs.ingestion.streaming import DRAIN
from recsys_data.defs.monitoring.checks import DatasetCheck
from recsys_data.defs.storage.maintenance import canceled_when_stopped, last_run
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

JOB = "check_streams"
# From one start to the next at least: without much traffic drains are short and many.
SPACE_SECONDS = 300.0
# Rows of a day count, so that checks may turn out otherwise although nothing was stored.
IDLE_SECONDS = 3600.0
# Checks read what was stored in a day. This is how much of the time may go into that.
SHARE = 0.1


def definitions(checks: Sequence[DatasetCheck]) -> dg.Definitions:
    """A job that runs these checks, and the sensor that starts it."""

    @dg.op(description="Runs all checks of the stream datasets.")
    def judge_streams(
        context: dg.OpExecutionContext,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        duckdb: DuckDBResource,
    ) -> None:
        with canceled_when_stopped(context):
            failed = [fault for check in checks for fault in _checked(context, check, lake, settings, duckdb)]
        if failed:
            raise dg.Failure("\n".join(failed), allow_retries=False)

    @dg.job(
        name=JOB,
        description="Runs all checks of the stream datasets; started by `stream_checks_sensor`.",
        tags={"dagster/max_runtime": "3600"},
    )
    def job() -> None:
        judge_streams()

    return dg.Definitions(jobs=[job], sensors=[_sensor(job, sorted({check.asset for check in checks}))])


def _checked(
    context: dg.OpExecutionContext, check: DatasetCheck, lake: Lake, settings: Settings, duckdb: DuckDBResource
) -> Iterator[str]:
    """Run one check and tell of it; yields why it could not be run."""
    try:
        result = check.result(lake, settings, duckdb)
    # What is wrong with one table is not a reason to leave the others.
    except Exception as error:
        context.log.exception(f"{check.name} of {check.asset} could not be run")
        yield f"{check.name} of {check.asset}: {error}"
        return
    context.log.info(f"{check.name} of {check.asset}: {'passed' if result.passed else 'failed'}")
    record(context.instance, check, result)


def record(instance: dg.DagsterInstance, check: DatasetCheck, result: dg.AssetCheckResult) -> None:
    """Record what a check found, as of the run that stores the dataset."""
    key = check.key.asset_key
    evaluation = dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=check.name,
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
    )
    run_id = stored_by(instance, key)
    if not run_id:
        instance.report_runless_asset_event(evaluation)
        return
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
    instance.report_dagster_event(dg.DagsterEvent(kind, job_name=JOB, event_specific_data=evaluation), run_id)


def stored_by(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    """The drain that goes on, or else the run of the latest materialization; empty if it has none."""
    going_on = dg.RunsFilter(job_name=DRAIN, statuses=[dg.DagsterRunStatus.STARTED])
    # The newest may still wait for the one before.
    oldest = instance.get_run_records(going_on, limit=1, ascending=True)
    if oldest:
        return oldest[0].dagster_run.run_id
    latest = instance.get_latest_materialization_event(key)
    return latest.run_id if latest else ""


def due_after(duration: float, another_run: bool) -> float:
    """Seconds from the start of one run to that of the next.

    >>> due_after(duration=5, another_run=True), due_after(duration=5, another_run=False)
    (300.0, 3600.0)
    >>> due_after(duration=120, another_run=True)
    1200.0
    """
    return max(SPACE_SECONDS if another_run else IDLE_SECONDS, duration / SHARE)


def _sensor(job: dg.JobDefinition, names: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="stream_checks_sensor",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Checks stream datasets after each drain, at most every five minutes, and hourly when idle; less "
        "often if checks would take more than a tenth of the time.",
    )
    def stream_checks_sensor(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        if not all(lake.exists(name) and lake.table(name).metadata.current_snapshot_id for name in names):
            return dg.SensorResult(skip_reason="nothing was stored yet")
        runs = [stored_by(context.instance, dg.AssetKey(name)) for name in names]
        last = last_run(context.instance, JOB)
        if last and not last.dagster_run.is_finished:
            return dg.SensorResult(skip_reason="the last run goes on")
        if last:
            started = last.create_timestamp.timestamp()
            another_run = json.loads(context.cursor or "null") != runs
            left = started + due_after((last.end_time or started) - started, another_run) - time.time()
            if left > 0:
                return dg.SensorResult(skip_reason=f"the next checks are due in {left:.0f} s")
        return dg.SensorResult([dg.RunRequest()], cursor=json.dumps(runs))

    return stream_checks_sensor
