"""The status line of `recsys-data up`: numbers of the ledger, and the state of every process."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.latency import latency_of, main_ledger
from recsys_data.operations.local.stopping import Stop
from recsys_data.operations.local.supervisor import Child, Supervisor
from recsys_data.operations.platform import Platform, explain

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_SECONDS = 1.0
# The lag is counted by reading the log; at most this share of the time goes into that.
READING_SHARE = 0.1
PLAIN_SECONDS = 10.0


class Dashboard:
    """The state of the platform as one line.

    Args:
        platform: whose numbers are shown.
        supervisor: whose processes are shown.
        checks: whether the process of that name answers; one without a check is ready at once.
    """

    def __init__(self, platform: Platform, supervisor: Supervisor, checks: "Mapping[str, Callable[[], bool]]") -> None:
        self._platform = platform
        self._supervisor = supervisor
        self._checks = checks
        self._ready: dict[str, bool] = {}
        self._numbers = "reading ..."
        self._due = 0.0

    def watch(self, stop: Stop, until: str | None = None) -> None:
        """Show the line until asked to stop, or until the process `until` is ready.

        Raises:
            Permanent: a process ended; with the end of its log.
        """
        with display() as show:
            while not stop:
                ended = self._supervisor.dead()
                if ended:
                    raise Permanent(exit_report(ended))
                self._supervisor.limit_logs()
                show(self.line())
                if until and self._ready.get(until):
                    return
                stop.wait(TICK_SECONDS)

    def line(self) -> str:
        """Numbers and processes as of now."""
        if time.monotonic() >= self._due:
            begun = time.monotonic()
            self._numbers = self._read()
            self._due = time.monotonic() + (time.monotonic() - begun) / READING_SHARE
        states = [f"{child.name} {self._state(child.name)}" for child in self._supervisor.children]
        return f"{self._numbers} | {', '.join(states)}"

    def _read(self) -> str:
        try:
            waiting = lag_of(self._platform.log, self._platform.lake).events
            ledger = main_ledger(self._platform.lake)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            # The processes keep running, and each logs the error that it gets.
            return f"no numbers: {message}"
        p95 = latency_of(ledger.latencies).p95_s
        return (
            f"read {ledger.read:,} = accepted {ledger.accepted:,} + duplicates {ledger.duplicates:,} + dead letters "
            f"{ledger.dead_letters:,} | waiting {waiting:,} | p95 {'-' if p95 is None else f'{p95:.1f} s'}"
        )

    def _state(self, name: str) -> str:
        if name not in self._checks:
            self._ready[name] = True
            return "runs"
        well = self._checks[name]()
        if well:
            self._ready[name] = True
        return "ready" if well else "does not answer" if self._ready.get(name) else "starts"


@contextmanager
def display() -> "Iterator[Callable[[str], None]]":
    """A line that changes in place on a terminal; elsewhere a new line now and then."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda line: live.update(Text(line), refresh=True)
        return
    due = 0.0

    def show(line: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PLAIN_SECONDS
            click.echo(f"{datetime.now():%H:%M:%S} {line}")  # noqa: DTZ005 - the watcher's own clock

    yield show


def exit_report(child: Child) -> str:
    """Which process ended, how, and the end of its log."""
    code = child.exit_code or 0
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The {child.name} {how}. The end of {child.log}:\n\n{child.tail()}\n\nThe other processes were stopped."
