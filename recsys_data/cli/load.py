"""`recsys-data load`: public data sets and files of events into the event log."""

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from recsys_data.cli.commands import Commands, opened_log
from recsys_data.settings import Settings
from recsys_data.sources.datasets import IMPORTERS, Importer


@click.group(
    cls=Commands,
    examples=[
        "recsys-data load movielens ml-latest-small",
        "recsys-data ingest --until-empty",
    ],
)
def load() -> None:
    """Append a data set to the event log.

    Loading it again changes nothing: its events are known by their ids.
    """


def append_all(importer: Importer, path: Path) -> None:
    """Append everything below `path`, with the time of receipt, and say what comes next."""
    from recsys_data.cli.terminal import progress
    from recsys_data.ingestion.log.stamp import stamp

    begun = time.monotonic()
    appended = 0
    with opened_log(Settings.from_env()) as log, progress() as bar:
        task = bar.add_task(f"reading {path}", total=None, rate=0.0)
        found = importer.read(path)
        bar.update(task, description=f"loading {importer.name}", total=found.total)
        try:
            for lines in found:
                log.append(stamp(lines, datetime.now(UTC)))
                appended += len(lines)
                bar.update(task, completed=appended, rate=appended / max(time.monotonic() - begun, 1e-3))
        except BaseException:
            click.echo(
                f"Stopped after {appended:,} of {found.total:,} lines. Load it again: "
                "what is in the event log already is dropped as a duplicate.",
                err=True,
            )
            raise
    click.echo(f"Appended {appended:,} lines to the event log in {time.monotonic() - begun:,.1f} s.")
    click.echo("Next: recsys-data ingest --until-empty (a running `recsys-data up` takes them by itself).")


def _command(importer: Importer) -> click.Command:
    @click.argument("path", type=click.Path(path_type=Path))
    def run(path: Path) -> None:
        append_all(importer, path)

    text = f"{importer.help}\n\nPATH is {importer.path}."
    return load.command(importer.name, help=text, examples=[f"recsys-data load {importer.name} PATH"])(run)


for _importer in IMPORTERS.values():
    _command(_importer)
