"""Child processes that live and end together: each in a process group of its own, each with a log file.

Whatever a child starts stays in its group and is stopped with it; if this process is killed, the guard stops them
(`guard.py`).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_data.operations.local import guard

TAIL_BYTES = 8_000
LARGE_LOG_BYTES = 20 * 1024 * 1024


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

    def reap(self) -> None:
        """Collect its exit code, and those of orphans in its group where this process is init, as in a container."""
        if self.exit_code is not None:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                    pass


class Supervisor:
    """Starts processes, and stops them all when it is left."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.children: list[Child] = []
        self._logs = logs
        self._environment = dict(environment)
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Supervisor":
        # Its stdin ends when this process does. A session of its own keeps Ctrl-C from it.
        command = [sys.executable, "-IS", guard.__file__]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, text=True, bufsize=1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        # It finds no group that lives, and ends.
        self._guard.communicate()

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start `python arguments...`; it prints to `<name>.log`, and the file of the last start is kept."""
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
        # A guard that was killed is not a reason to stop.
        with contextlib.suppress(BrokenPipeError):
            print(process.pid, file=self._guard.stdin)
        return child

    def dead(self) -> Child | None:
        """A child that ended, if any."""
        return next((child for child in self.children if child.exit_code is not None), None)

    def limit_logs(self) -> None:
        """Truncate large log files, keeping their ends in `.log.1`; the children write to them directly."""
        for child in self.children:
            if child.log.stat().st_size > LARGE_LOG_BYTES:
                child.log.with_suffix(".log.1").write_text(child.tail(lines=1000), "utf-8")
                os.truncate(child.log, 0)

    def stop(self) -> None:
        """End every child and whatever it started."""
        guard.stop([child.process.pid for child in self.children], self._reap)

    def _reap(self) -> None:
        for child in self.children:
            child.reap()
