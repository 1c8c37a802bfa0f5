"""The lease of the consumer: one consumes at a time, and when to start the next one.

A lease ends with its process (see `leases.py`). A second one marks a standby that waits for the first, so that no gap
opens at a takeover. The compare-and-set of the tables keeps everything correct; the lease saves work. One run per
micro-batch would cost seconds each, so the sensor starts one run, which goes on for its time budget; `decide` says from
plain facts when.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from recsys_data.errors import Transient
from recsys_data.leases import open_lease
from recsys_data.settings import Settings

CONSUMER, STANDBY = "drain", "drain.next"


class ConsumerBusy(Transient):
    """Another process consumes, or waits to."""


class Holder(msgspec.Struct, frozen=True):
    """Who consumes: its process id, and when it ends (seconds since 1970; None: when the log is empty)."""

    process: int
    ends_at: float | None = None


@contextlib.contextmanager
def hold_lease(settings: Settings, wait_seconds: float, budget: float | None = None) -> Iterator[None]:
    """Hold the lease of the consumer.

    Args:
        settings: they name the state folder.
        wait_seconds: how long to wait, as standby, for the present holder.
        budget: seconds that the consumer will run, published in `Holder.ends_at`.

    Raises:
        ConsumerBusy: the lease is still held after `wait_seconds`, or another standby waits already.
    """
    deadline = time.monotonic() + wait_seconds
    standby, consumer = settings.of_share(STANDBY), settings.of_share(CONSUMER)
    with open_lease(settings, standby) as queue, open_lease(settings, consumer) as lease:
        if not queue.take():
            raise ConsumerBusy("Another process already waits to ingest. There is no need for a second one.")
        while not lease.take():
            if time.monotonic() >= deadline:
                raise ConsumerBusy(
                    f"Another process is ingesting: process {_decoded(lease.holder()).process} holds {lease.place}. "
                    "Let it finish, or stop it, and try again."
                )
            time.sleep(lease.pause)
        queue.release()
        ends_at = None if budget is None else round(time.time() + budget, 3)
        lease.publish(msgspec.json.encode(Holder(os.getpid(), ends_at)))
        yield


def lease_holder(settings: Settings) -> Holder | None:
    """Who holds the lease now, if anybody."""
    with open_lease(settings, settings.of_share(CONSUMER)) as lease:
        return None if (found := lease.holder()) is None else _decoded(found)


def standby_waits(settings: Settings) -> bool:
    """Whether a standby waits for the lease."""
    with open_lease(settings, settings.of_share(STANDBY)) as lease:
        return lease.holder() is not None


def _decoded(found: bytes | None) -> Holder:
    try:
        return msgspec.json.decode(found or b"", type=Holder)
    except msgspec.DecodeError:
        # Its holder has just locked it, and has not yet written who it is.
        return Holder(0)


# A run needs about two seconds to start, and the sensor is evaluated every five seconds at best.
LEAD_SECONDS = 15.0

START_SECONDS = 60.0

# From its start until a run holds the lease, or waits for it. One that does neither was killed together with the
# processes that would have reported it to Dagster, which shows it as started for hours.
TAKE_SECONDS = 15.0

FIRST_PAUSE_SECONDS = 5.0

# Runs that were killed count as failed too, and events wait meanwhile.
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ConsumerRun:
    """A consumer that the sensor asked for: how long ago, when it began, when it ended and whether it failed.

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
        """Whether it may still acquire the lease."""
        return self.ended is None and self.age < START_SECONDS and (self.begun is None or self.begun < TAKE_SECONDS)


@dataclass(frozen=True, slots=True)
class Decision:
    start: bool
    why: str


def decide(now: float, lag: int, holder: Holder | None, standby: bool, runs: Sequence[ConsumerRun]) -> Decision:
    """Whether to start a consumer now.

    Args:
        now: seconds since 1970.
        lag: events that wait in the log.
        holder: who holds the lease.
        standby: a process waits for the lease already.
        runs: the latest consumers that were started, newest first.

    >>> decide(100.0, 5, None, False, [])
    Decision(start=True, why='5 events wait')
    >>> decide(100.0, 5, Holder(7, ends_at=600.0), False, [])
    Decision(start=False, why='process 7 is consuming; 5 events wait')
    """
    starting = [run for run in runs if run.is_starting]
    if holder is not None:
        if holder.ends_at is None or holder.ends_at - now > LEAD_SECONDS:
            return Decision(False, f"process {holder.process} is consuming; {lag} events wait")
        if standby or any(run.age < 2 * LEAD_SECONDS for run in starting):
            return Decision(False, "a standby is starting")
        return Decision(True, f"process {holder.process} is about to end")
    if lag == 0:
        return Decision(False, "nothing waits in the event log")
    if starting:
        return Decision(False, "a consumer is starting")
    pause = _pause(runs)
    if pause > 0:
        return Decision(False, f"the last consumers failed; the next one starts in {pause:.0f} s")
    return Decision(True, f"{lag} events wait")


def _pause(runs: Sequence[ConsumerRun]) -> float:
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
