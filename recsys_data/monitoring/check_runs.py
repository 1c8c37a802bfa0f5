"""When the checks of stream datasets run: by themselves, now and then.

Not with the drains: those take minutes, in which their checks would show no result, and none runs when events stop,
which is what one of the checks is for.
"""

import json
import time
from collections.abc import Sequence

import dagster as dg

from recsys_data.lake.defs import last_run
from recsys_data.lake.tables import Lake

JOB = "check_streams"
EVERY_SECONDS = 600.0
# Rows of a day count, so that checks may turn out otherwise although nothing was stored.
UNCHANGED_SECONDS = 3600.0
# Checks read what was stored in a day. This is how much of the time may go into that.
SHARE = 0.1


def definitions(names: Sequence[str]) -> dg.Definitions:
    """A job that runs all checks of these datasets, and the sensor that starts it."""
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.checks_for_assets(*names),
        description="Checks what the stream datasets hold; started by the sensor.",
        tags={"dagster/max_runtime": "3600"},
    )
    return dg.Definitions(jobs=[job], sensors=[_sensor(job, names)])


def due_after(duration: float, changed: bool) -> float:
    """Seconds from the start of one run to that of the next.

    >>> due_after(duration=5, changed=True), due_after(duration=5, changed=False), due_after(duration=120, changed=True)
    (600.0, 3600.0, 1200.0)
    """
    return max(EVERY_SECONDS if changed else UNCHANGED_SECONDS, duration / SHARE)


def _sensor(job, names: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="stream_checks_sensor",
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Has stream datasets checked every {EVERY_SECONDS / 60:.0f} minutes, every hour while nothing new "
        "is stored, and less often where that would take more than a tenth of the time.",
    )
    def stream_checks_sensor(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        snapshots = [lake.table(name).metadata.current_snapshot_id if lake.exists(name) else None for name in names]
        if None in snapshots:
            return dg.SensorResult(skip_reason="nothing was stored yet")
        last = last_run(context.instance, JOB)
        if last and not last.dagster_run.is_finished:
            return dg.SensorResult(skip_reason="the last run goes on")
        if last:
            changed = json.loads(context.cursor or "null") != snapshots
            started = last.create_timestamp.timestamp()
            left = started + due_after((last.end_time or started) - started, changed) - time.time()
            if left > 0:
                return dg.SensorResult(skip_reason=f"the next checks are due in {left:.0f} s")
        return dg.SensorResult([dg.RunRequest()], cursor=json.dumps(snapshots))

    return stream_checks_sensor
