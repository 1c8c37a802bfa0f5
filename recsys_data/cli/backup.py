"""`recsys-data backup` and `recsys-data restore`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys_data.cli.commands import Exampled
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from recsys_data.operations.backup.backup import Progress

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data backup /mnt/backup/recsys",
        "recsys-data backup /mnt/backup/recsys --with-dagster",
        "recsys-data backup /mnt/backup/recsys --verify",
    ],
)
@click.argument("to", type=FOLDER)
@click.option("--with-dagster", is_flag=True, help="Dagster's storage (runs, ticks) too, if it is in the state folder.")
@click.option("--verify", is_flag=True, help="Make none: read the one there, and compare its checksums.")
def backup(to: Path, with_dagster: bool, verify: bool) -> None:
    """Back up lake and event log to the folder TO, while everything goes on.

    TO holds one restore point; the next backup to it copies what is new and replaces the point when it is complete.
    Broken off at any moment, the point before holds. Files that others landed, contracts and settings are not in it.
    """
    from recsys_data.operations.backup.backup import back_up, point_of
    from recsys_data.operations.backup.restore import verify as check

    begun = time.monotonic()
    with watched(f"{'verifying' if verify else 'backing up to'} {to}") as progress:
        if verify:
            facts, files, size = check(to, progress)
            said = f"All {files:,} files ({size / 1e6:,.1f} MB) are as they were copied."
        else:
            made = back_up(Settings.from_env(), to, with_dagster, progress)
            facts = made.facts
            said = (
                f"{made.files:,} files ({made.bytes / 1e6:,.1f} MB), of which {made.copied_files:,} "
                f"({made.copied_bytes / 1e6:,.1f} MB) were new, in {time.monotonic() - begun:,.1f} s."
            )
    click.echo(said)
    click.echo(f"Restore point: {facts.made_at:%Y-%m-%d %H:%M:%S} UTC, event log up to {point_of(facts.positions)}.")


@click.command(cls=Exampled, examples=["RECSYS_DATA_DIR=/srv/recsys recsys-data restore /mnt/backup/recsys"])
@click.argument("source", metavar="FROM", type=FOLDER)
def restore(source: Path) -> None:
    """Restore the state folder from the backup in FROM.

    The state folder must be the path that was backed up, and empty. Every checksum is compared. Broken off, the same
    command goes on. What the restored log holds beyond the lake is stored by the next drain.
    """
    from recsys_data.operations.backup.backup import point_of
    from recsys_data.operations.backup.restore import restore as bring_back

    begun = time.monotonic()
    settings = Settings.from_env()
    with watched(f"restoring from {source}") as progress:
        facts = bring_back(settings, source, progress)
    click.echo(
        f"Restored {settings.data_dir} as of {facts.made_at:%Y-%m-%d %H:%M:%S} UTC, event log up to "
        f"{point_of(facts.positions)}, in {time.monotonic() - begun:,.1f} s."
    )
    click.echo("Next: recsys-data ingest --until-empty && recsys-data doctor")


@contextmanager
def watched(description: str) -> Iterator["Progress"]:
    """A progress bar of bytes."""
    from recsys_data.cli.terminal import byte_progress
    from recsys_data.operations.backup.backup import Progress

    with byte_progress() as bar:
        task = bar.add_task(description, total=0)

        def expect(count: int) -> None:
            bar.update(task, total=(bar.tasks[0].total or 0) + count)

        yield Progress(
            step=lambda name: bar.update(task, description=f"{description}: {name}"),
            expected=expect,
            done=lambda count: bar.update(task, advance=count),
        )
