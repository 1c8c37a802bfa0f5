"""`recsys-data simulate`: storefront traffic to try everything with, and the truth to check the result against."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.errors import UserError
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from recsys_data.cli.support.delivery import Target
    from recsys_data.operations.local.stopping import Stop
    from recsys_data.simulator.decisions_file import DecisionsFile
    from recsys_data.simulator.simulate import Batch
    from recsys_data.simulator.traffic.behaviour import Visit

PACE_SECONDS = 0.2
AHEAD = timedelta(hours=24)


class Moment(click.ParamType):
    """A time with its zone; a date means midnight UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time. Expected one like 2026-11-22T10:00:00Z or 2026-11-22.", param, ctx)
        if found.tzinfo is None and "T" in value:
            self.fail(f"{value!r} has no time zone. Add one, e.g. {value}Z.", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data simulate --events 100000 --seed 7 --truth truth.json",
        "recsys-data simulate --rate 50 --to http://127.0.0.1:8080",
        "recsys-data simulate --events 1000 --end 2026-11-22 --to events.ndjson",
    ],
)
@click.option("--events", type=click.IntRange(min=0), help="How many lines to send, including faults and redeliveries.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Lines per second.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the traffic.")
@click.option("--end", type=Moment(), help="When the run ends. [default: now]")
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="How many days the run covers.",
)
@click.option(
    "--truth", type=click.Path(dir_okay=False, path_type=Path), help="Write the truth of what was sent, as JSON."
)
@click.option(
    "--decisions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every recommended list with its candidates and their true chances of a click, as Parquet.",
)
@click.option("--to", default="log", show_default=True, metavar="log|URL|FILE", help="Where to send it; `-` is stdout.")
@click.pass_context
def simulate(
    ctx: click.Context,
    events: int | None,
    rate: float | None,
    seed: int,
    end: datetime | None,
    days: float,
    truth: Path | None,
    decisions: Path | None,
    to: str,
) -> None:
    """Simulate the traffic of a shop.

    The traffic includes faults, redeliveries and late events; --truth writes how many of each, and what ranking
    policies are truly worth.

    Use --events N for a fixed number of events (optionally limited by --rate), or --rate R for continuous live
    traffic until Ctrl-C. --to log writes to the event log directly, --to URL posts to a collector, --to FILE writes
    the raw client payloads.
    """
    from recsys_data.cli.support.delivery import target
    from recsys_data.operations.local.stopping import Stop

    if events is None and rate is None:
        raise click.UsageError("Give --events N for a fixed number of events, or --rate R for continuous traffic.")
    if events is None and (end or ctx.get_parameter_source("days") != click.core.ParameterSource.DEFAULT):
        raise click.UsageError("--end and --days need --events.")
    for file in (truth, decisions):
        if file and not file.absolute().parent.is_dir():
            raise UserError(f"The folder of {file} does not exist. Create it first.")
    settings = Settings.from_env()
    with Stop() as stop, ExitStack() as files:
        on_visit = files.enter_context(decisions_file(decisions)).add if decisions else None
        batches = (
            endless(rate, seed, stop, on_visit)
            if events is None
            else planned(events, end, days, seed, to, settings, on_visit)
        )
        with target(to, settings, stop.wait_or_interrupt) as place:
            sent, found = deliver(batches, place, events, None if events is None else rate, stop)
    click.echo(f"Sent {sent:,} lines to {to}.", err=True)
    if truth:
        write_truth(truth, found, sent)
    ctx.exit(stop.exit_code)


def decisions_file(path: Path) -> "DecisionsFile":
    """The file of recommended lists, of the shop that every run shares."""
    from recsys_data.simulator.decisions_file import DecisionsFile
    from recsys_data.simulator.simulate import Plan
    from recsys_data.simulator.world import build

    return DecisionsFile(path, build(Plan(0).world))


def endless(
    rate: float | None, seed: int, stop: "Stop", on_visit: "Callable[[Visit], None] | None" = None
) -> "Iterator[Batch]":
    """Live traffic at a rate."""
    from recsys_data.simulator.live import live

    return live(rate or 0.0, seed, sleep=stop.wait, on_visit=on_visit)


def planned(
    events: int,
    end: datetime | None,
    days: float,
    seed: int,
    to: str,
    settings: Settings,
    on_visit: "Callable[[Visit], None] | None" = None,
) -> "Iterator[Batch]":
    """The lines of a planned run.

    Raises:
        UserError: ingestion would reject events that the truth counts as accepted.
    """
    from recsys_data.simulator import simulate as storefront
    from recsys_data.simulator.traffic.sessions import LATE_DAYS

    end = end or datetime.now(UTC)
    plan = storefront.Plan(events=events, end=end, days=days, seed=seed)
    if end > datetime.now(UTC) + AHEAD:
        raise UserError(
            f"The run ends at {end}: events more than 24 hours in the future are rejected. Give an earlier --end."
        )
    first = (end - timedelta(days=days + LATE_DAYS)).date()
    if to == "log" and first < settings.first_day:
        raise UserError(
            f"The run begins at {first}, late events included, and events before {settings.first_day} are "
            "rejected. Give a later --end, fewer --days, or an earlier RECSYS_DATA_FIRST_DAY."
        )
    return storefront.simulate(plan, on_visit)


def deliver(
    batches: "Iterator[Batch]", place: "Target", events: int | None, rate: float | None, stop: "Stop"
) -> tuple[int, dict[str, Any]]:
    """Deliver until the end or until asked to stop; returns how many lines, and the truth up to the last batch."""
    from recsys_data.cli.support.terminal import progress

    truth: dict[str, Any] = {}
    sent = 0
    begun = time.monotonic()
    with progress() as bar:
        task = bar.add_task("simulating", total=events, rate=0.0)
        for batch in batches:
            if stop:
                break
            for lines in paced(batch.lines, rate, begun, sent, stop):
                place.deliver(lines)
                sent += len(lines)
                bar.update(task, completed=sent, rate=sent / max(time.monotonic() - begun, 1e-3))
            # Making the next batch, which may never be delivered, increases the totals.
            truth = batch.truth.to_dict() | {"ranking": batch.truth.ranking_dict()}
    return sent, truth


def write_truth(path: Path, truth: dict[str, Any], sent: int) -> None:
    """Write the truth, unless the last batch was sent in part only."""
    import msgspec

    from recsys_data.durable import write_atomically
    from recsys_data.simulator.simulate import Plan
    from recsys_data.simulator.truth import Truth
    from recsys_data.simulator.world import build

    truth = truth or Truth(build(Plan(0).world)).to_dict()
    if truth["events"] != sent:
        click.echo(
            f"Interrupted: {path} is not written, because the truth of a partly sent batch is not known.", err=True
        )
        return
    write_atomically(path, msgspec.json.format(msgspec.json.encode(truth), indent=2) + b"\n")


def paced(lines: list[bytes], rate: float | None, begun: float, sent: int, stop: "Stop") -> Iterator[list[bytes]]:
    """The lines in pieces, each when it is due; all at once without a rate. Ends early when asked to stop."""
    if rate is None:
        yield lines
        return
    at = 0
    while at < len(lines) and not stop:
        due = int((time.monotonic() - begun) * rate) - sent
        if due > at:
            yield lines[at:due]
            at = min(due, len(lines))
        else:
            stop.wait(PACE_SECONDS)
