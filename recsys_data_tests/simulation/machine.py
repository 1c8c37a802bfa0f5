"""A simulated machine: everything that processes ask of the operating system passes here, and may go wrong here.

While it is switched on, calls are led here (`calls.py`). Each counts as an operation. At a chosen one the power fails,
the process dies, the call returns an error, or the process stops for a while. Processes run one at a time.
"""

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import time_machine

from recsys_data_tests.simulation.calls import SYNCS, Calls
from recsys_data_tests.simulation.disk import Disk

START = datetime(2031, 3, 1, 12, tzinfo=UTC)
OPERATION_SECONDS = 0.01
CHANGES = ("pwrite", "write", "open", "mkdir", "rename", "replace", "fsync", "fdatasync")
POWER, KILL, NO_SPACE, IO_ERROR, STOP = "power", "kill", "no space", "i/o error", "stop"


class Crash(BaseException):
    """The process is gone. It is no Exception, for no handler of the program may see it."""


@dataclass(slots=True)
class Fault:
    """What goes wrong at the `at`-th operation (from 1) of a step, of those named `operation` if that is given.

    Attributes:
        kind: POWER, KILL, NO_SPACE, IO_ERROR or STOP.
        happened: the operation at which it did.
    """

    kind: str
    at: int
    operation: str = ""
    happened: str = ""


@dataclass
class Process:
    """What runs a step. `stopped` processes wait for `Machine.resume`."""

    name: str
    fault: Fault | None = None
    is_dead: bool = False
    passed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    thread: threading.Thread | None = None
    error: BaseException | None = None
    stopped: bool = False
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Machine:
    """One machine. `folder` is its disk; `rng` decides everything that chance decides."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.disk = Disk(folder)
        self.rng = random.Random(seed)
        self.image: Path | None = None
        self.process: Process | None = None
        self.counts: Counter[str] = Counter()
        self._root = f"{folder}{os.sep}"
        self._control = threading.Semaphore(0)
        self._clock = time_machine.travel(START, tick=False)
        self._traveller: time_machine.Traveller | None = None
        self.monotonic = 1000.0

    # Running processes

    def run(self, process: Process, work: Callable[[], Any]) -> None:
        """Run a process until it ends, dies or is stopped; `process.error` says how it ended."""
        if process.fault is None or process.fault.kind != STOP:
            self._run(process, work)
            return
        process.thread = threading.Thread(target=self._run_in_thread, args=(process, work), daemon=True)
        process.thread.start()
        self._control.acquire()

    def resume(self, process: Process, dead: bool = False) -> None:
        """Let a stopped process go on, or, if it is `dead`, end."""
        assert process.stopped and process.thread
        process.stopped, process.is_dead = False, process.is_dead or dead
        before = self.process
        process.go.release()
        self._control.acquire()
        self.process = before
        if not process.stopped:
            process.thread.join()

    def _run(self, process: Process, work: Callable[[], Any]) -> None:
        self.process = process
        try:
            work()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            process.error = error
        finally:
            self.process = None

    def _run_in_thread(self, process: Process, work: Callable[[], Any]) -> None:
        self._run(process, work)
        self._control.release()

    # Operations

    def operation(self, name: str, shown: object) -> None:
        """Count an operation of the running process, and let happen what is due."""
        process = self.process
        if process is None:
            return
        if process.is_dead:
            raise Crash
        process.passed += 1
        process.counts[name] += 1
        self.counts[name] += 1
        self.advance(OPERATION_SECONDS)
        fault = process.fault
        if fault and self._is_due(process, fault, name):
            fault.happened = fault.happened or f"{name} {shown}".replace(self._root, "")
            self._happen(process, fault, name)

    def _is_due(self, process: Process, fault: Fault, name: str) -> bool:
        if fault.kind in (NO_SPACE, IO_ERROR):
            able = CHANGES if fault.kind == NO_SPACE else SYNCS
            # A full disk stays full for the rest of the step.
            reached = bool(fault.happened) or process.passed >= fault.at
            return name in able and reached and (fault.kind == NO_SPACE or not fault.happened)
        if fault.happened:
            return False
        if fault.operation:
            return name == fault.operation and process.counts[name] == fault.at
        return process.passed == fault.at

    def _happen(self, process: Process, fault: Fault, name: str) -> None:
        if fault.kind == NO_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault.kind == IO_ERROR:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if fault.kind == STOP:
            # A transaction that is open would keep others from theirs.
            if name == "before commit":
                fault.happened = ""
                fault.operation, fault.at = "", process.passed + 1
                return
            process.stopped = True
            self.process = None
            self._control.release()
            process.go.acquire()
            self.process = process
        else:
            process.is_dead = True
            if fault.kind == POWER:
                self.image = self.disk.folder.with_name("image")
                self.disk.survive(self.image, self.rng)
        if process.is_dead:
            raise Crash

    @contextmanager
    def from_outside(self, settled: Path | None = None) -> Iterator[None]:
        """What is done meanwhile is done by somebody else, who never fails, and is on the disk when it is done.

        Without `settled`, everything is; with it, what lies in that folder, and the names on the way to it.
        """
        process, self.process = self.process, None
        yield
        self.process = process
        if settled is None:
            self.disk.settle()
        else:
            self.disk.settle_below(settled)

    def start_again(self) -> None:
        """After a power failure: what is left of the disk is all there is. No process may be left."""
        assert self.image
        self.disk.replace(self.image)
        self.image = None

    # Time

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        assert self._traveller
        self.monotonic += max(0.0, seconds)
        self._traveller.shift(seconds)

    @contextmanager
    def on(self) -> Iterator["Machine"]:
        """Switch the machine on."""
        with Calls(self).led():
            self._traveller = self._clock.start()
            try:
                yield self
            finally:
                self._clock.stop()
