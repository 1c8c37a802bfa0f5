"""`recsys-data trace`: finds one event in the log and the tables."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

if TYPE_CHECKING:
    from recsys_data.monitoring.trace.trace import Trace


@click.command(
    cls=Exampled,
    # An event id may begin with a dash.
    context_settings={"ignore_unknown_options": True},
    examples=[
        "recsys-data trace my-first",
        "recsys-data trace 0:1048576 --rows",
        "recsys-data trace my-first --json | jq .state",
    ],
)
@click.argument("event", metavar="EVENT_ID|PARTITION:OFFSET")
@click.option("--rows", is_flag=True, help="Also show columns and lines, which may hold personal data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def trace(event: str, rows: bool, as_json: bool) -> None:
    """Find an event by its id or its position in the log.

    It is a row (in which file, since which snapshot), a dead letter (why), waiting in the log (behind how much), or
    nowhere. Redeliveries that were dropped are shown while the log keeps them. Exit code 1 if the event is nowhere or
    unaccounted for. Scans the whole log and all ids, so it can take a while.
    """
    from recsys_data.cli.support.terminal import print_json
    from recsys_data.monitoring.trace.trace import trace as find

    with opened() as platform:
        found = find(platform.log, platform.lake, event, rows)
    if as_json:
        print_json(found)
    else:
        show(found)
    if found.state in ("nowhere", "unaccounted"):
        click.get_current_context().exit(1)


def show(found: "Trace") -> None:
    """Print a trace for people."""
    from recsys_data.cli.support.terminal import print_table, visible

    click.echo(visible(f"{found.asked}: {found.meaning}"))
    for one in found.stored:
        click.echo()
        facts = [
            ("log", f"partition {one.log_partition}, offset {one.log_offset}"),
            ("received", moment(one.received_at)),
            ("stored", f"{moment(one.ingested_at)}{after(one.seconds)}"),
            ("partition", one.day),
            ("data file", one.file),
            ("added by", f"snapshot {one.snapshot}, {moment(one.added_at) if one.added_at else 'which has expired'}"),
        ]
        columns = [(f"  {name}", "" if value is None else value) for name, value in (one.row or {}).items()]
        print_table((f"row of {one.dataset}", ""), [*facts, *columns])
    for one in found.dead_letters:
        click.echo()
        facts = [
            ("reason", one.reason),
            ("detail", one.detail or "-"),
            ("log", f"partition {one.log_partition}, offset {one.log_offset}"),
            ("received", moment(one.received_at)),
            ("rejected", moment(one.rejected_at)),
            ("line", one.raw or f"{one.bytes:,} bytes; --rows shows it, personal data included"),
        ]
        print_table((f"row of {one.dataset}", ""), facts)
    show_lines(found)
    if found.more:
        click.echo(f"{found.more:,} or more others are not listed.")


def show_lines(found: "Trace") -> None:
    """Print the lines in the log that are neither rows nor dead letters."""
    from recsys_data.cli.support.terminal import print_table

    said = {"duplicate": "delivered again, dropped", "unaccounted": "read, but neither stored nor rejected"}
    lines = [
        (
            one.log_partition,
            one.log_offset,
            said.get(one.state) or f"waits behind {one.bytes_before:,} bytes",
            one.raw or f"{one.bytes:,} bytes",
        )
        for one in found.log
    ]
    if lines:
        click.echo()
        print_table(("partition", "offset", "line in the log", ""), lines)


def after(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds:,.1f} s after receipt"


def moment(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S.%f} UTC"
