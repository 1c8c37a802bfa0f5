"""One drain at a time: a kernel file lock, which is let go when its process dies, whatever else is believed.

A second lock marks a successor that waits for the first, so that no gap opens when one drain hands over to
the next. Across machines the compare-and-set of the tables keeps everything correct; the lock saves work.
"""

import contextlib
import os
import time
from collections.abc import Iterator
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
