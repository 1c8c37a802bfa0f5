"""`recsys-data backup` and `recsys-data restore`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from recsys_data.operations.backup.store import OnProgress, Point

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
@click.option("--with-dagster", is_flag=True, help="Also Dagster's storage (runs, ticks), if in the state folder.")
@click.option("--verify", is_flag=True, help="Make no backup: read the one there and compare its checksums.")
def backup(to: Path, with_dagster: bool, verify: bool) -> None:
    """Back up lake and event log to the folder TO while everything runs.

    TO holds one restore point. The next backup copies what is new and replaces the point when it is complete. If
    interrupted, the previous restore point stays valid. Landing folders, contracts and settings are not included.
    """
    from recsys_data.operations.backup.backup import back_up
    from recsys_data.operations.backup.restore import verify as check

    begun = time.monotonic()
    with watched(f"{'verifying' if verify else 'backing up to'} {to}") as progress:
        if verify:
            point = check(to, progress)
            said = f"All {size_of(point)} are as they were copied."
        else:
            made = back_up(Settings.from_env(), to, with_dagster, progress)
            point = made.point
            said = (
                f"{size_of(point)}, of which {made.copied_files:,} ({made.copied_bytes / 1e6:,.1f} MB) were new, in "
                f"{time.monotonic() - begun:,.1f} s."
            )
    click.echo(said)
    click.echo(f"Restore point: {moment_of(point)}.")


@click.command(cls=Exampled, examples=["RECSYS_DATA_DIR=/srv/recsys recsys-data restore /mnt/backup/recsys"])
@click.argument("source", metavar="FROM", type=FOLDER)
def restore(source: Path) -> None:
    """Restore the state folder from the backup in FROM.

    The state folder must have the path that was backed up, and be empty. Every checksum is compared. If interrupted,
    the same command continues. Events of the restored log that the lake does not have are stored by the next run.
    """
    from recsys_data.operations.backup.restore import restore as restore_to

    begun = time.monotonic()
    settings = Settings.from_env()
    with watched(f"restoring from {source}") as progress:
        point = restore_to(settings, source, progress)
    click.echo(f"Restored {settings.data_dir} as of {moment_of(point)}, in {time.monotonic() - begun:,.1f} s.")
    click.echo("Next: recsys-data ingest --until-empty && recsys-data doctor")


def size_of(point: "Point") -> str:
    return f"{len(point.files):,} files ({point.bytes / 1e6:,.1f} MB)"


def moment_of(point: "Point") -> str:
    """When a point was made, and where its log ends: `2026-11-25 10:00:00 UTC, event log up to 0: 1,024, 1: 0`."""
    ends = ", ".join(f"{partition}: {end:,}" for partition, end in sorted(point.positions.items()))
    return f"{point.made_at:%Y-%m-%d %H:%M:%S} UTC, event log up to {ends}"


@contextmanager
def watched(description: str) -> Iterator["OnProgress"]:
    """A progress bar of files."""
    from rich.progress import Progress

    from recsys_data.cli.support.terminal import watched as console

    with Progress(console=console(), transient=True, disable=not console().is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
