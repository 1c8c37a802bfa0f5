"""The demo of `recsys-data up`: a shop whose traffic, database and exports go on as long as it runs.

Data flow: the storefront's world -> events to the collector; beside them `demo/shop.db` (every minute) and
`demo/{crm,pim,cms}/<day>/` (when a day is over) -> snapshots of users and items, by the contracts of the demo.
Run it alone: `python -m recsys_data.cli.demo simulate --rate 20 --to http://127.0.0.1:8080`.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from recsys_data.operations.platform import explain
from recsys_data.settings import Settings

REFRESH_SECONDS = 60.0


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


def main() -> None:
    """Run the command line on the arguments of this process, and keep the sources beside it."""
    from recsys_data.cli import main as command_line

    # It ends with the process: whatever it writes is whole or not there.
    arguments = (Settings.from_env().demo_dir, threading.Event().wait)
    threading.Thread(target=keep_sources, args=arguments, name="demo sources", daemon=True).start()
    command_line()


if __name__ == "__main__":
    main()
