"""State folders, measured commands and what they found, for `benchmarks.bounded`."""

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.soak.samples import received_in
from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake

LIMIT_MB = 1000
GROUP_BYTES = 4 * 1024 * 1024
WRITERS = 4

INTERRUPTED = 130


@dataclass(slots=True)
class Found:
    """What a case measured; `problems` says which limits it exceeded and what is not as planted."""

    case: str
    planted: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    p95: float | None = None
    limits: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def require(self, holds: bool, problem: str) -> None:
        """Note a problem unless it holds."""
        if not holds:
            self.problems.append(f"{self.case}: {problem}")

    def limit(self, found: float, most: float, unit: str) -> None:
        """Compare a measurement with its limit."""
        self.limits.append(f"{most:g} {unit}")
        self.require(found <= most, f"{found:.1f} {unit}; at most {most:g} are allowed")

    @property
    def row(self) -> list[str]:
        """As a row of the table that is printed."""
        p95 = "" if self.p95 is None else f"{self.p95:.1f}"
        ok = "no" if self.problems else "yes"
        times = [f"{self.seconds:.1f}", f"{self.cpu_seconds:.1f}", p95]
        return [self.case, self.planted, f"{self.peak_mb:.0f}", *times, ", ".join(self.limits), ok]


class Place:
    """A state folder, and the commands that are run on it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(dir=str(folder / "data"))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
        self.environment = {**plain, "RECSYS_DATA_DIR": self.settings.dir}

    def fill(self, planted: Iterable[bytes]) -> None:
        """Append lines to the log as several collectors would, each to a partition of its own."""
        logs = [open_log(self.settings) for _ in range(WRITERS)]
        for log, group in zip(itertools.cycle(logs), grouped(planted), strict=False):
            log.append(group)
        for log in logs:
            log.close()

    def start(self, *arguments: str) -> "Measured":
        """Start a command."""
        return Measured(subprocess.Popen(self._command(arguments), env=self.environment, stdout=subprocess.DEVNULL))

    def rows(self, query: str) -> list[dict[str, int]]:
        """The answer of `recsys-data sql`."""
        return json.loads(self._answer("sql", query, "--format", "json"))

    def status(self) -> dict[str, int]:
        """The ledger that `recsys-data status` shows, with the lag."""
        status = json.loads(self._answer("status", "--json"))
        return {**status["ledger"], "lag": status["log"]["lag_events"]}

    def delays(self) -> np.ndarray:
        """Seconds from receipt to visible of every event: float64, shape (events,)."""
        table = open_lake(self.settings, load_contracts()).table("interactions")
        found = [one.timestamp_ms / 1000 - received_in(table, one) for one in table.snapshots()]
        return np.concatenate([np.zeros(0), *found])

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "recsys_data.cli", *arguments]

    def _answer(self, *arguments: str) -> bytes:
        return subprocess.run(self._command(arguments), env=self.environment, check=True, capture_output=True).stdout


class Measured:
    """A process and its peak memory, as the kernel counts it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.begun = time.monotonic()
        self.peak_mb = 0.0

    def sample(self) -> bool:
        """Look once; whether it still runs."""
        with suppress(OSError):
            for text in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if text.startswith("VmHWM:"):
                    self.peak_mb = max(self.peak_mb, int(text.split()[1]) * 1024 / 1e6)
        return self.process.poll() is None

    def finish(self, found: Found) -> None:
        """Wait for its end, note what it took, and compare its memory with the limit."""
        before = _children_seconds()
        while self.sample():
            time.sleep(0.02)
        found.seconds, found.peak_mb = time.monotonic() - self.begun, self.peak_mb
        found.cpu_seconds = _children_seconds() - before
        # A consumer that is interrupted ends as the shell says of SIGINT.
        code = self.process.returncode
        found.require(code in (0, INTERRUPTED), f"the command ended with {code}")
        found.limit(found.peak_mb, LIMIT_MB, "MB")


def _children_seconds() -> float:
    """Processor seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def grouped(planted: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in appends of bounded size."""
    group: list[bytes] = []
    size = 0
    for line in planted:
        group.append(line)
        size += len(line)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
