"""Processes of the fault harness: forked from one that has imported everything, so that a command begins at once.

The harness itself never starts a thread and never opens a lake, since neither outlives a fork: whatever does either
runs in a child. A child ends when the harness does, however that ends.
"""

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
DEFECT = 70
POLL_SECONDS = 0.002
LAST_WORDS_SECONDS = 1.0
DYING_SECONDS = 30.0
HUNG = "still ran after"

_children: set[int] = set()


class Child:
    """A process that was started here, and what it wrote."""

    def __init__(self, work: Callable[[], object], output: Path) -> None:
        """Begin `work` in a process of its own; its output goes to the file `output`."""
        self.output = output
        self.begun = time.monotonic()
        self.ended = 0.0
        self.code: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            _run(work, output, parent)
        _children.add(self.pid)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._reaped(status)
        return self.code

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, once it has ended; it is killed after `seconds`, and then its code says so."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                # On this signal it says where each of its threads is.
                self.signal(signal.SIGABRT)
                time.sleep(LAST_WORDS_SECONDS)
                self.kill()
                if self.code is None:
                    self._reaped(os.waitpid(self.pid, 0)[1])
                with self.output.open("a") as file:
                    file.write(f"\n{HUNG} {seconds:g} s, and was killed\n")
            time.sleep(POLL_SECONDS)
        assert self.code is not None
        return self.code

    def stopped(self, seconds: float = 60.0) -> bool:
        """Whether it stopped itself (SIGSTOP) before it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if found and os.WIFSTOPPED(status):
                return True
            if found:
                self._reaped(status)
                return False
            time.sleep(POLL_SECONDS)
        return False

    def signal(self, number: int) -> None:
        # Until it is reaped its id is not given to another process.
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """Kill it and whatever it started, if it made a process group of its own, and wait until they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
            self.kill()
            self.wait()
            # The others may take a while to die, and hold their locks until then.
            deadline = time.monotonic() + DYING_SECONDS
            while time.monotonic() < deadline:
                os.killpg(self.pid, 0)
                time.sleep(POLL_SECONDS)

    @property
    def hung(self) -> bool:
        """Whether it was killed because it did not end."""
        return HUNG in self.text()

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    def text(self) -> str:
        """What it wrote."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def _reaped(self, status: int) -> None:
        self.code = os.waitstatus_to_exitcode(status)
        self.ended = time.monotonic()
        _children.discard(self.pid)


def kill_all() -> None:
    """Kill whatever was started here and still runs."""
    for pid in list(_children):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _children.discard(pid)


def limit_file_size(pid: int, most: int) -> None:
    """Let a process write files up to `most` bytes only; what goes beyond fails as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _run(work: Callable[[], object], output: Path, parent: int) -> None:
    """The life of a child; never returns."""
    code = DEFECT
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(DEFECT)
        _children.clear()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)
        faulthandler.enable(file=sys.stderr)
        work()
        code = 0
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            sys.stderr.write(f"{exit_.code}\n")
        code = exit_.code if isinstance(exit_.code, int) else (0 if exit_.code is None else 1)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
