"""When a drain is to be started: the decision of the sensor, from plain facts.

One run per micro-batch would cost seconds each, so the sensor starts one draining run, which goes on for its
time budget and is followed by a successor that waits for its lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys_data.ingestion.streaming.consumer_lease import Holder

# A run needs about two seconds to start, and the sensor is looked at every five seconds at best.
LEAD_SECONDS = 15.0
START_SECONDS = 60.0
# From its start until a run holds the lock, or waits for it; one that does neither later was killed with all that
# could have told Dagster, which shows it as started for hours.
TAKE_SECONDS = 15.0
FIRST_PAUSE_SECONDS = 5.0
# Runs that were killed count as failed too, and events wait meanwhile.
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DrainRun:
    """A drain that the sensor asked for: how long ago, when it began, when it ended and whether it failed.

    Attributes:
        age: seconds since it was asked for.
        ended: seconds since its end, None before it.
        begun: seconds since its process began, None before that.
    """

    age: float
    ended: float | None = None
    failed: bool = False
    begun: float | None = None

    @property
    def is_starting(self) -> bool:
        """Whether it may yet take the lock."""
        return self.ended is None and self.age < START_SECONDS and (self.begun is None or self.begun < TAKE_SECONDS)


@dataclass(frozen=True, slots=True)
class Decision:
    start: bool
    why: str


def decide(now: float, lag: int, holder: Holder | None, successor: bool, runs: Sequence[DrainRun]) -> Decision:
    """Whether to start a drain now.

    Args:
        now: seconds since 1970.
        lag: events that wait in the log.
        holder: the drain that is alive, by its lock.
        successor: a process waits for that lock already.
        runs: the latest drains that were started, newest first.

    >>> decide(100.0, 5, None, False, [])
    Decision(start=True, why='5 events wait')
    >>> decide(100.0, 5, Holder(7, ends_at=600.0), False, [])
    Decision(start=False, why='process 7 is draining; 5 events wait')
    """
    starting = [run for run in runs if run.is_starting]
    if holder is not None:
        if holder.ends_at is None or holder.ends_at - now > LEAD_SECONDS:
            return Decision(False, f"process {holder.process} is draining; {lag} events wait")
        if successor or any(run.age < 2 * LEAD_SECONDS for run in starting):
            return Decision(False, "a successor is on its way")
        return Decision(True, f"process {holder.process} is about to hand over")
    if lag == 0:
        return Decision(False, "nothing waits in the event log")
    if starting:
        return Decision(False, "a drain is starting")
    pause = _pause(runs)
    if pause > 0:
        return Decision(False, f"the last drains failed; the next one starts in {pause:.0f} s")
    return Decision(True, f"{lag} events wait")


def _pause(runs: Sequence[DrainRun]) -> float:
    """Seconds still to wait after failures in a row, twice as long after each."""
    failures = 0
    ended = 0.0
    for run in runs:
        if run.ended is None:
            continue
        if not run.failed:
            break
        ended = run.ended if failures == 0 else ended
        failures += 1
    if failures == 0:
        return 0.0
    return min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS) - ended
