"""`recsys-data snapshot`: takes, lists and accepts snapshots of users and items without Dagster."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.operations.platform import Platform, opened

if TYPE_CHECKING:
    from recsys_data.ingestion.batch.quarantine import SnapshotResult

DAY = click.DateTime(["%Y-%m-%d"])


@click.group(cls=Commands)
def snapshot() -> None:
    """Take and accept snapshots of datasets such as user_profiles and item_catalog.

    A snapshot is the full state of a day. One that lost or changed more than its contract allows is on hold: the last
    good one stays published until someone accepts the new one.
    """


@snapshot.command(
    examples=[
        "recsys-data snapshot take item_catalog",
        "recsys-data snapshot take item_catalog --day 2011-01-17",
    ]
)
@click.argument("name")
@click.option("--day", type=DAY, help="The day. Default: every day that the sources have and the lake does not.")
@click.option("--accept", is_flag=True, help="Publish it however much it lost or changed.")
def take(name: str, day: datetime | None, accept: bool) -> None:
    """Take snapshots and refresh the history."""
    from recsys_data.errors import UserError
    from recsys_data.ingestion.batch.partitions import available_days, stored_days
    from recsys_data.ingestion.batch.snapshot import snapshot_contract, take_snapshot
    from recsys_data.logs import configure_command
    from recsys_data.sources.locations import named

    with opened() as platform, _watched() as on_progress:
        configure_command(platform.settings)
        contract = snapshot_contract(platform.lake, name)
        there = [day.date()] if day else available_days(contract, platform.settings)
        done = set() if day else set(stored_days(platform.lake, name)) - {datetime.now(UTC).date()}
        days = [one for one in there if one not in done]
        if not there:
            sources = ", ".join(map(named, contract.servers))
            raise UserError(f"The sources of {name} have no snapshot. Checked: {sources}.")
        taken = [take_snapshot(platform.lake, platform.settings, name, one, accept, on_progress) for one in days]
        _bring_up_to_date(platform, name)
    _show(taken)
    _refuse_on_hold(taken)


@snapshot.command("list", examples=["recsys-data snapshot list", "recsys-data snapshot list item_catalog"])
@click.argument("name", required=False)
def list_(name: str | None) -> None:
    """List the days that are stored, on hold and missing."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.ingestion.batch.partitions import expected_day, missing_days, stored_days
    from recsys_data.ingestion.batch.quarantine import quarantined
    from recsys_data.ingestion.batch.snapshot import snapshot_contract

    rows = []
    with opened() as platform:
        names = [name] if name else [one for one, c in platform.contracts.items() if c.is_snapshot]
        for one in names:
            contract = snapshot_contract(platform.lake, one)
            stored = stored_days(platform.lake, one)
            held = ", ".join(f"{taken.day} ({taken.violation})" for taken in quarantined(platform.settings, one))
            due = expected_day(contract, datetime.now(UTC))
            first, last = (str(stored[0]), str(stored[-1])) if stored else ("-", "-")
            missing = len(missing_days(platform.lake, contract))
            rows.append((one, len(stored), first, last, missing, f"{due}{'' if due in stored else ' missing'}", held))
    print_table(("dataset", "days", "first", "last", "missing", "due", "on hold"), rows, right=("days", "missing"))


@snapshot.command(examples=["recsys-data snapshot accept item_catalog 2026-11-25"])
@click.argument("name")
@click.argument("day", type=DAY)
def accept(name: str, day: datetime) -> None:
    """Publish a snapshot that is on hold, as it was read."""
    from recsys_data.ingestion.batch.snapshot import accept_snapshot

    with opened() as platform:
        taken = accept_snapshot(platform.lake, platform.settings, name, day.date())
        _bring_up_to_date(platform, name)
    _show([taken])


def _bring_up_to_date(platform: Platform, name: str) -> None:
    from recsys_data.contracts.model import history_name
    from recsys_data.ingestion.batch.history.update import refresh_history

    settings = platform.settings
    staging = settings.staging_dir / history_name(name)
    brought = refresh_history(platform.lake, name, staging, settings.history_memory_mb * 1_000_000)
    click.echo(
        f"{history_name(name)}: {len(brought.days)} days applied, {brought.rows:,} rows, {brought.current:,} current."
    )


def _watched():
    from contextlib import contextmanager

    from recsys_data.cli.support.terminal import watched

    @contextmanager
    def shown():
        console = watched()
        if not console.is_terminal:
            yield lambda what, rows: None
            return
        with console.status("") as status:
            yield lambda what, rows: status.update(f"{what}{f', {rows:,} rows' if rows else ''}")

    return shown()


def _show(taken: "list[SnapshotResult]") -> None:
    from recsys_data.cli.support.terminal import print_table

    rows = [
        (
            one.name,
            str(one.day),
            one.compared.rows,
            one.compared.new,
            one.compared.changed,
            one.compared.lost,
            sum(one.rejected.values()),
            ", ".join(f"{reason} {count:,}" for reason, count in one.rejected.items()),
            one.violation or "published",
        )
        for one in taken
    ]
    if not rows:
        click.echo("Nothing to do: every snapshot that the sources have is stored.")
        return
    head = ("dataset", "day", "rows", "new", "changed", "deleted", "rejected", "reasons", "state")
    print_table(head, rows, right=head[2:7])


def _refuse_on_hold(taken: "list[SnapshotResult]") -> None:
    from recsys_data.errors import UserError

    held = [one for one in taken if one.violation]
    if held:
        commands = "; ".join(f"recsys-data snapshot accept {one.name} {one.day}" for one in held)
        raise UserError(f"{len(held)} of {len(taken)} snapshots are on hold. To publish them: {commands}")
