"""`recsys-data load`: public data sets and files of events into the event log, users and items to landing folders."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.operations.platform import opened_log
from recsys_data.settings import Settings
from recsys_data.sources.datasets import IMPORTERS, Importer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress

    from recsys_data.sources.datasets.landing import State


@click.group(
    cls=Commands,
    examples=[
        "recsys-data load movielens ml-latest-small",
        "recsys-data ingest --until-empty",
    ],
)
def load() -> None:
    """Append a data set to the event log.

    Its users and items are written to the landing folders, one full snapshot a day. Loading it again changes nothing:
    events are deduplicated by their ids, and snapshots are replaced by equal ones.
    """


def append_all(importer: Importer, path: Path) -> None:
    """Append all events below `path`, with the time of receipt, land the states, and say what comes next."""
    from recsys_data.cli.support.terminal import progress
    from recsys_data.ingestion.streaming.log.received_at import with_received_at

    begun = time.monotonic()
    appended = 0
    settings = Settings.from_env()
    with opened_log(settings) as log, progress() as bar:
        task = bar.add_task(f"reading {path}", total=None, rate=0.0)
        found = importer.read(path)
        bar.update(task, description=f"loading {importer.name}", total=found.total)
        try:
            for lines in found:
                log.append(with_received_at(lines, datetime.now(UTC)))
                appended += len(lines)
                bar.update(task, completed=appended, rate=appended / max(time.monotonic() - begun, 1e-3))
        except BaseException:
            click.echo(
                f"Stopped after {appended:,} of {found.total:,} lines. Load it again: "
                "lines that are in the event log already are dropped as duplicates.",
                err=True,
            )
            raise
        landed = land_all(found.states, settings.landing_dir, bar)
    click.echo(f"Appended {appended:,} lines to the event log in {time.monotonic() - begun:,.1f} s.")
    click.echo("Next: recsys-data ingest --until-empty (a running `recsys-data up` takes them by itself).")
    if landed:
        click.echo(landed)


def land_all(states: "Sequence[State]", folder: Path, bar: "Progress") -> str:
    """Write every state; returns what was written and what to do with it, nothing for no states."""
    from recsys_data.contracts.model import history_name
    from recsys_data.sources.datasets.landing import land

    if not states:
        return ""
    rows = 0
    task = bar.add_task("landing", total=len(states), rate=0.0)
    begun = time.monotonic()
    for done, state in enumerate(states, 1):
        rows += land(folder, state)
        bar.update(task, completed=done, rate=done / max(time.monotonic() - begun, 1e-3))
    datasets = list(dict.fromkeys(state.dataset for state in states))
    days = sorted({state.day for state in states})
    select = ",".join(f"{name},{history_name(name)}" for name in datasets)
    return (
        f"Landed {rows:,} rows of {' and '.join(datasets)} for {len(days)} day{'s' * (len(days) > 1)} in {folder}.\n"
        f"Next: dagster asset materialize --select {select} --partition-range {days[0]}...{days[-1]} "
        "-m recsys_data.definitions"
    )


def _command(importer: Importer) -> click.Command:
    @click.argument("path", type=click.Path(path_type=Path))
    def run(path: Path) -> None:
        append_all(importer, path)

    text = f"{importer.help}\n\nPATH is {importer.path}."
    return load.command(importer.name, help=text, examples=[f"recsys-data load {importer.name} PATH"])(run)


for _importer in IMPORTERS.values():
    _command(_importer)
