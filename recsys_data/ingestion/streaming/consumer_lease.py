"""The lease of the consumer: one consumes at a time, and when to start the next one.

A lease is a kernel file lock, which is released when its process dies. A second lock marks a standby that waits for
the first, so that no gap opens at a takeover. Across machines the compare-and-set of the tables keeps everything
correct; the lease saves work. One run per micro-batch would cost seconds each, so the sensor starts one run, which goes
on for its time budget; `decide` says from plain facts when.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from recsys_data.errors import Transient
from recsys_data.leases import POLL_SECONDS, try_lock, unlock
from recsys_data.settings import Settings


class DrainBusy(Transient):
    """Another process drains, or waits to; there is nothing to do but to wait for it."""


class Holder(msgspec.Struct, frozen=True):
    """Who drains: its process, and when it will hand over (seconds since 1970; None: when it is done)."""

    process: int
    ends_at: float | None = None


@contextlib.contextmanager
def drain_lock(settings: Settings, wait_seconds: float, budget: float | None = None) -> Iterator[None]:
    """Be the only drain.

    Args:
        settings: whose state folder is drained into.
        wait_seconds: how long to wait for a drain that is alive.
        budget: how long this one will drain, told to whoever asks.

    Raises:
        DrainBusy: another drain is alive after `wait_seconds`, or somebody waits already.
    """
    deadline = time.monotonic() + wait_seconds
    with _open(settings.standby_lock) as queue, _open(settings.lock_path("drain")) as file:
        if not try_lock(queue):
            raise DrainBusy("Another process already waits to ingest. There is no need for a second one.")
        while not try_lock(file):
            if time.monotonic() >= deadline:
                raise DrainBusy(
                    f"Another process is ingesting: process {_read(file).process} holds {file.name}. "
                    "Let it finish, or stop it, and try again."
                )
            time.sleep(POLL_SECONDS)
        unlock(queue)
        ends_at = None if budget is None else time.time() + budget
        file.seek(0)
        file.truncate()
        file.write(msgspec.json.encode(Holder(os.getpid(), ends_at)))
        file.flush()
        yield


def running_drain(settings: Settings) -> Holder | None:
    """The drain that is alive now, if any."""
    with _open(settings.lock_path("drain")) as file:
        return None if try_lock(file) else _read(file)


def successor_waits(settings: Settings) -> bool:
    """Whether a process waits to become the next drain."""
    with _open(settings.standby_lock) as file:
        return not try_lock(file)


def drain_is_running(settings: Settings) -> bool:
    """Whether some process drains now."""
    return running_drain(settings) is not None


def _open(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+b")


def _read(file: BinaryIO) -> Holder:
    file.seek(0)
    try:
        return msgspec.json.decode(file.read(), type=Holder)
    except msgspec.DecodeError:
        # It has just been taken, and its holder has not yet written who it is.
        return Holder(0)


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
