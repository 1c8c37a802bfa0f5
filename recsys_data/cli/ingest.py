"""`recsys-data ingest`: stores the event log in the lake without Dagster."""

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import Platform, opened

if TYPE_CHECKING:
    from recsys_data.ingestion.streaming.stream_writer import CommitResult


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data load movielens ml-latest-small",
        "recsys-data ingest --until-empty",
    ],
)
@click.option("--until-empty", is_flag=True, help="Stop when the log is read to its end.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another process that ingests.",
)
def ingest(until_empty: bool, wait: float) -> None:
    """Store the events of the event log in the lake.

    Without --until-empty it continues with new events until Ctrl-C, which is safe at any time: events that are not
    committed are read again. One process ingests at a time.
    """
    from recsys_data.ingestion.streaming.consumer_lease import hold_lease
    from recsys_data.ingestion.streaming.latency import main_ledger
    from recsys_data.logs import configure_command
    from recsys_data.monitoring.status import reasons_since

    with opened() as platform, hold_lease(platform.settings, wait):
        configure_command(platform.settings)
        counted = main_ledger(platform.lake).positions
        begins = {partition: counted.get(partition, 0) for partition in platform.log.partitions()}
        totals = Totals()
        try:
            follow(platform, until_empty, totals)
        finally:
            totals.show(reasons_since(platform.lake, begins) if totals.dead_letters else {})


@dataclass(slots=True)
class Totals:
    """What was ingested since the command began."""

    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    begun: float = field(default_factory=time.monotonic)

    def add(self, flushed: "CommitResult") -> None:
        self.read += flushed.read
        self.accepted += flushed.accepted
        self.duplicates += flushed.duplicates
        self.dead_letters += flushed.dead_letters

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.read / max(time.monotonic() - self.begun, 1e-3)

    def show(self, reasons: dict[str, int]) -> None:
        """Print the totals."""
        from recsys_data.cli.support.terminal import print_table

        rows = [
            ("read", f"{self.read:,}"),
            ("accepted", f"{self.accepted:,}"),
            ("duplicates", f"{self.duplicates:,}"),
            ("dead letters", f"{self.dead_letters:,}"),
            *((f"  {reason}", f"{count:,}") for reason, count in reasons.items()),
        ]
        seconds = time.monotonic() - self.begun
        print_table(("events", f"in {seconds:,.1f} s, {self.rate:,.0f} a second"), rows)


def follow(platform: Platform, until_empty: bool, totals: Totals) -> None:
    """Consume the log, with a progress bar."""
    from recsys_data.cli.support.terminal import progress
    from recsys_data.ingestion.streaming.consumer import Until, consume
    from recsys_data.ingestion.streaming.lag import lag_of

    until = Until(idle=0.0 if until_empty else math.inf)
    with progress("waiting") as bar:
        seen = bar.console.is_terminal
        # Counting the lag takes as long as reading, so it is done on a terminal only, and again when the counted events
        # are stored.
        lag = lag_of(platform.log, platform.lake).events if seen else 0
        task = bar.add_task("ingesting", total=lag, rate=0.0, waiting=lag)
        for flushed in consume(platform.log, platform.lake, platform.settings, until):
            totals.add(flushed)
            lag -= flushed.read
            if lag <= 0 and seen:
                lag = lag_of(platform.log, platform.lake).events
            bar.update(task, completed=totals.read, total=totals.read + lag, rate=totals.rate, waiting=lag)
