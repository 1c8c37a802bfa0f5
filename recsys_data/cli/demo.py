"""The demo of `recsys-data up`: a shop whose traffic, database and exports go on as long as it runs.

Data flow: the storefront's world -> events to the collector; beside them `demo/shop.db` (every minute) and
`demo/{crm,pim,cms}/<day>/` (when a day is over) -> snapshots of users and items, by the contracts of the demo. A new
lake gets the traffic of the days before first, and models of it, so that there is something to recommend by.
Run it alone: `python -m recsys_data.cli.demo simulate --rate 20 --to http://127.0.0.1:8080`.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from recsys_data.operations.platform import explain, opened
from recsys_data.settings import Settings

REFRESH_SECONDS = 60.0
# Seconds of work for the platform, and enough for a model.
PAST = ("--events", "20000", "--days", "3", "--seed", "1")
ENOUGH = 15_000
MODELS = ("item_knn", "rp3beta")
LOOK_SECONDS = 2.0


def keep_sources(folder: Path, done: Callable[[float], bool], now: Callable[[], float] = time.time) -> None:
    """Refresh the shop's systems again and again; failures are reported and tried again.

    Args:
        folder: of the demo.
        done: waits for some seconds; true ends it.
        now: seconds since 1970.
    """
    from recsys_data.simulator.shop.database import bring_up_to_date
    from recsys_data.simulator.shop.exports import make_missing
    from recsys_data.simulator.world import build

    over = False
    while not over:
        moment = now()
        try:
            for day in make_missing(folder, build(), datetime.fromtimestamp(moment, UTC).date()):
                click.echo(f"Exported {day}.", err=True)
            bring_up_to_date(folder / "shop.db", build(), int(moment))
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            click.echo(f"Error: {message}", err=True)
        over = done(REFRESH_SECONDS)


def is_new() -> bool:
    """Whether nothing was collected yet."""
    from recsys_data.ingestion.streaming.latency import main_ledger

    with opened() as platform:
        return not main_ledger(platform.lake).read and not any(platform.log.end_offsets().values())


def prepare(collector: str, run: Callable[..., bool], done: Callable[[float], bool]) -> None:
    """Send the traffic of some days, and train models unless there are some.

    Args:
        collector: URL of the collector.
        run: runs a command of the command line; false if it failed.
        done: waits for some seconds; true ends it.
    """
    from recsys_data.ingestion.streaming.latency import main_ledger
    from recsys_data.training.registry import MODELS as REGISTRY
    from recsys_data.training.registry import aliases_of

    if not run("simulate", *PAST, "--to", collector):
        return
    with opened() as platform:
        while main_ledger(platform.lake).accepted < ENOUGH:
            if done(LOOK_SECONDS):
                return
        if not platform.lake.exists(REGISTRY) or not aliases_of(platform.lake):
            for name in MODELS:
                run("train", name)


def run_command(*arguments: str) -> bool:
    """Run a command of the command line in a process of its own, which belongs to the group of this one."""
    return subprocess.run([sys.executable, "-m", "recsys_data.cli", *arguments], check=False).returncode == 0


def _explained(work: Callable[[], object]) -> object:
    """What `work` returns; None if it failed for a reason that can be explained, which is printed."""
    try:
        return work()
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        click.echo(f"Error: {message}", err=True)
        return None


def main() -> None:
    """Run the command line on the arguments of this process, and keep the sources beside it."""
    from recsys_data.cli import main as command_line

    # It ends with the process: whatever it writes is whole or not there.
    arguments = (Settings.from_env().demo_dir, threading.Event().wait)
    threading.Thread(target=keep_sources, args=arguments, name="demo sources", daemon=True).start()
    # Asked before there is traffic; if it breaks off, the next start finds some, and does nothing.
    if _explained(is_new):
        prepares = partial(prepare, sys.argv[-1], run_command, threading.Event().wait)
        threading.Thread(target=_explained, args=(prepares,), name="demo models", daemon=True).start()
    command_line()


if __name__ == "__main__":
    main()
