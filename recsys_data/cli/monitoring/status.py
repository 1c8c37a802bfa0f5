"""`recsys-data status`: lag, ledger, latency and datasets."""

from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

if TYPE_CHECKING:
    from recsys_data.monitoring.status import Status
    from recsys_data.serving.online.lag import OnlineLag


@click.command(cls=Exampled, examples=["recsys-data status --json | jq .log.lag_events"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def status(as_json: bool) -> None:
    """Show lag, ledger, latency and datasets.

    The ledger is balanced when every line read is accepted, a duplicate or a dead letter, and the row counts of the
    tables match it.
    """
    from recsys_data.cli.support.terminal import print_json
    from recsys_data.monitoring.status import read_status
    from recsys_data.serving.online.lag import lag_now

    with opened() as platform:
        found = read_status(platform.log, platform.lake, platform.settings)
        online = lag_now(platform.lake, platform.settings)
    if as_json:
        print_json({**msgspec.to_builtins(found), "online": msgspec.to_builtins(online)})
    else:
        show(found, online)


def behind(found: "OnlineLag | str | None") -> str:
    """How far the online store is behind, for people."""
    if found is None or isinstance(found, str):
        return found or "-"
    if found.seconds is None:
        return "empty"
    return f"{found.rows:,} rows behind, for {seconds(found.seconds)}" if found.rows else "equal to the lake"


def show(found: "Status", online: "OnlineLag | str | None" = None) -> None:
    """Print the status for people."""
    from recsys_data.cli.support.terminal import print_table

    ledger, latency, answers = found.ledger, found.latency, found.answers
    removed = {"(replayed)": ledger.replayed, "(discarded)": ledger.discarded}
    size = "" if found.log.lag_bytes is None else f", {found.log.lag_bytes:,} bytes"
    facts = [
        ("waiting in the log", f"{found.log.lag_events:,} events{size}"),
        ("read", f"{ledger.read:,}"),
        ("  accepted", f"{ledger.accepted:,}"),
        ("  duplicates", f"{ledger.duplicates:,}"),
        ("  dead letters", f"{ledger.dead_letters:,}"),
        *((f"    {reason}", f"{count:,}") for reason, count in found.dead_letters_by_reason.items()),
        *((f"    {outcome}", f"{count:,}") for outcome, count in removed.items() if count),
        ("ledger", "balanced" if ledger.balanced else "NOT BALANCED: rows are missing or counted twice"),
        ("received to queryable", f"{seconds(latency.p50_s)} (p50), {seconds(latency.p95_s)} (p95)"),
        ("online store", behind(online)),
        ("received to an answer", f"{seconds(answers.p50_s)} (p50), {seconds(answers.p95_s)} (p95)"),
    ]
    print_table(("events", ""), facts)
    click.echo()
    print_table(
        ("dataset", "rows", "days", "newest event", "state"),
        [
            (name, f"{one.rows:,}", f"{one.partitions:,}", moment(one.latest), one.freshness)
            for name, one in found.datasets.items()
        ],
        right=("rows", "days"),
    )


def seconds(value: float | None) -> str:
    """Seconds for people.

    >>> seconds(1.26), seconds(None)
    ('1.3 s', '-')
    """
    return "-" if value is None else f"{value:,.1f} s"


def moment(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC"
