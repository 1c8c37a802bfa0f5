"""`recsys-data dead-letters`: shows, replays and discards rejected lines and rows."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.operations.platform import Platform, opened

if TYPE_CHECKING:
    from rich.progress import Progress

    from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter
    from recsys_data.ingestion.streaming.rejected import Example

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.group("dead-letters", cls=Commands)
def dead_letters() -> None:
    """List and show rejected lines and snapshot rows, replay lines or discard them."""


@dead_letters.command("list", examples=["recsys-data dead-letters list", "recsys-data dead-letters list --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def list_(as_json: bool) -> None:
    """List the reasons, with counts, first and last time, and the place of an example."""
    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.ingestion.streaming.rejected import summary

    with opened() as platform:
        found = summary(platform.lake)
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("Nothing was rejected.")
        return
    rows = [
        (
            one.reason,
            one.dataset or "-",
            f"{one.count:,}",
            f"{one.first:%Y-%m-%d %H:%M}",
            f"{one.last:%Y-%m-%d %H:%M}",
            one.place,
        )
        for one in found
    ]
    print_table(("reason", "of", "count", "first", "last", "example"), rows, right=("count",))


@dead_letters.command(
    examples=[
        "recsys-data dead-letters show missing_actor",
        "recsys-data dead-letters show wrong_type --limit 10000 --raw > fixed.ndjson",
    ]
)
@click.argument("reason")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many, newest first.")
@click.option("--raw", is_flag=True, help="Print only the lines as they came.")
def show(reason: str, limit: int, raw: bool) -> None:
    """Show the lines or rows that were rejected for a reason, as they came, including personal data.

    To fix lines by hand, write them to a file with --raw, edit it, load it with `recsys-data load events FILE`, then
    discard the originals here.
    """
    from recsys_data.errors import UserError
    from recsys_data.ingestion.streaming.rejected import examples, summary

    with opened() as platform:
        found = examples(platform.lake, reason, limit)
        known = [] if found else sorted({one.reason for one in summary(platform.lake)})
    if not found:
        raise UserError(_nothing(reason, known))
    for one in found:
        if raw:
            click.echo(one.raw)
        else:
            _show(one)


def _show(one: "Example") -> None:
    from recsys_data.cli.support.terminal import print_table

    facts = [
        ("rejected", f"{one.rejected_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("detail", one.detail),
        ("as it came", one.text),
    ]
    print_table((one.place, one.reason), facts)
    click.echo()


def _nothing(reason: str, known: list[str]) -> str:
    there = f"Known reasons: {', '.join(known)}." if known else "Nothing was rejected at all."
    return f"Nothing was rejected for {reason!r}. {there}"


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select dead letters."""
    for option in (
        click.option("--until", type=MOMENT, metavar="TIME", help="Only those rejected before then (UTC)."),
        click.option("--since", type=MOMENT, metavar="TIME", help="Only those rejected then or later (UTC)."),
        click.option("--dataset", help="Only those that break the contract of this dataset."),
    ):
        command = option(command)
    return command


@dead_letters.command(
    examples=[
        "recsys-data dead-letters replay",
        "recsys-data dead-letters replay missing_actor --since 2026-11-20",
    ]
)
@click.argument("reason", required=False)
@_selecting
def replay(reason: str | None, dataset: str | None, since: datetime | None, until: datetime | None) -> None:
    """Append rejected lines to the event log again, after a contract was changed.

    Lines that are valid now are stored by the next run, unless an event of the same id was stored meanwhile. The others
    stay as they are. Interrupting it is safe at any time.
    """
    from recsys_data.cli.support.terminal import print_table, progress
    from recsys_data.ingestion.streaming.replay import replay as replay_letters

    with opened() as platform, progress() as bar:
        criteria, total = _criteria(platform, reason, dataset, since, until)
        replayed = _Counted(bar, "replaying", total)
        stay = replay_letters(platform.lake, platform.log, platform.settings, criteria, replayed.add)
    rows = [("replayed", "", f"{replayed.done:,}")]
    rows += [("stay", f"would be {why} again", f"{count:,}") for why, count in stay.most_common()]
    print_table(("dead letters", "", "count"), rows, right=("count",))
    if replayed.done:
        click.echo("Next: recsys-data ingest --until-empty (a running `recsys-data up` does it by itself).")


@dead_letters.command(examples=["recsys-data dead-letters discard malformed_json --until 2026-11-01"])
@click.argument("reason")
@_selecting
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(reason: str, dataset: str | None, since: datetime | None, until: datetime | None, yes: bool) -> None:
    """Delete rejected lines of the stream for good. The ledger keeps counting them."""
    from recsys_data.cli.support.terminal import progress
    from recsys_data.ingestion.streaming.replay import discard as discard_letters

    with opened() as platform:
        criteria, total = _criteria(platform, reason, dataset, since, until)
        if not yes:
            click.confirm(f"Delete {total:,} dead letters ({reason}) for good?", abort=True)
        with progress() as bar:
            discarded = _Counted(bar, "discarding", total)
            discard_letters(platform.lake, platform.settings, criteria, discarded.add)
    click.echo(f"Discarded {discarded.done:,} dead letters.")


def _criteria(
    platform: Platform, reason: str | None, dataset: str | None, since: datetime | None, until: datetime | None
) -> tuple["DeadLetterFilter", int]:
    """The filter that the options make, and how many dead letters match it.

    Raises:
        UserError: there are none.
    """
    from recsys_data.errors import UserError
    from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter, count
    from recsys_data.ingestion.streaming.rejected import summary

    # What is rejected from now on does not match, however long it takes.
    moments = [moment.replace(tzinfo=UTC) if moment else None for moment in (since, until)]
    criteria = DeadLetterFilter(reason, dataset, moments[0], moments[1] or datetime.now(UTC))
    total = sum(count(platform.lake, criteria).values())
    if total:
        return criteria, total
    origins = {one.origin for one in summary(platform.lake) if one.reason == reason} - set(_streamed(platform))
    if origins:
        raise UserError(
            f"Rows rejected for {reason} are in {', '.join(sorted(origins))}: they came with snapshots. Fix the source "
            "or the contract and take the day's snapshot again; rows that are valid then are removed there."
        )
    known = sorted(count(platform.lake, DeadLetterFilter()))
    raise UserError(f"{_nothing(reason or 'that', known)} See `recsys-data dead-letters list`.")


def _streamed(platform: Platform) -> list[str]:
    return [name for name, contract in platform.contracts.items() if contract.is_stream]


class _Counted:
    """A progress bar over dead letters."""

    def __init__(self, bar: "Progress", what: str, total: int) -> None:
        self.done = 0
        self._begun = time.monotonic()
        self._bar = bar
        self._task = bar.add_task(what, total=total, rate=0.0)

    def add(self, count: int) -> None:
        self.done += count
        rate = self.done / max(time.monotonic() - self._begun, 1e-3)
        self._bar.update(self._task, completed=self.done, rate=rate)
