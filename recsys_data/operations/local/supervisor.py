"""Child processes that live and end together: each in a process group of its own, each with a log file.

Whatever a child starts stays in its group, and is stopped with it; by the guard (`guard.py`) if this process is killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_data.operations.local import guard

STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
TAIL_BYTES = 8_000
LARGE_LOG_BYTES = 20 * 1024 * 1024
PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class Child:
    """A process that was started, and where it writes."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self.process.poll()

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log file."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])

    def group_lives(self) -> bool:
        """Whether it, or anything it started, still runs."""
        if self.process.poll() is None:
            return True
        # What it left behind became ours, and would count as running until we take note of its end.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                pass
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Supervisor:
    """Starts processes, and stops them all when it is left."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.children: list[Child] = []
        self._logs = logs
        self._environment = dict(environment)
        self._guard: subprocess.Popen[str] | None = None
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Supervisor":
        _adopt_orphans()
        # Its stdin ends when this process does. A session of its own keeps Ctrl-C from it.
        command = [sys.executable, "-IS", guard.__file__]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True, bufsize=1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._guard:
            for child in self.children:
                self._tell("-", child)
            self._guard.communicate()

    def _tell(self, what: str, child: Child) -> None:
        # Without a guard nothing ends but what does not have to.
        with contextlib.suppress(BrokenPipeError):
            if self._guard and self._guard.stdin:
                self._guard.stdin.write(f"{what}{child.process.pid}\n")

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start `python arguments...`; what it prints goes to `<name>.log`, the one of the last time is kept."""
        log = self._logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.children.append(child)
        self._tell("+", child)
        return child

    def dead(self) -> Child | None:
        """A child that ended, if any."""
        return next((child for child in self.children if child.exit_code is not None), None)

    def limit_logs(self) -> None:
        """Start large log files anew; children go on writing at the end of theirs."""
        for child in self.children:
            if child.log.stat().st_size > LARGE_LOG_BYTES:
                tail = child.tail(lines=1000)
                child.log.with_suffix(".log.1").write_text(tail, "utf-8")
                os.truncate(child.log, 0)

    def stop(self) -> None:
        """End every child and whatever it started: asked first, forced after `STOP_SECONDS`."""
        running = [child for child in reversed(self.children) if child.group_lives()]
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            for child in running:
                child.signal_group(number)
            deadline = time.monotonic() + seconds
            while running and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                running = [child for child in running if child.group_lives()]


def _adopt_orphans() -> None:
    """Make processes that lose their parent our children, where the system can: then nothing is left unnoticed."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
