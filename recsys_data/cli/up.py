"""`recsys-data up`: everything on one machine, in one terminal.

Data flow: demo traffic -> collector -> event log -> Dagster's draining runs -> lake; each a child process.
The demo also keeps a shop's database and exports, which the snapshots of users and items are taken from.
"""

import errno
import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from recsys_data.cli.commands import Exampled
from recsys_data.errors import Transient, UserError
from recsys_data.leases import try_lock
from recsys_data.operations.local.dagster_home import dagster_home
from recsys_data.operations.platform import opened
from recsys_data.settings import PREFIX, Settings, environment

if TYPE_CHECKING:
    from recsys_data.operations.local.code_server import CodeServer

PORT = click.IntRange(1, 65535)
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data up",
        "RECSYS_DATA_DIR=/srv/recsys recsys-data up --no-demo --port 3001",
    ],
)
@click.option("--demo/--no-demo", default=True, show_default=True, help="Simulate a shop: traffic, database, exports.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address that the collector listens on.")
@click.option(
    "--ui-host",
    default="127.0.0.1",
    show_default=True,
    help="The same for the Dagster UI. Whoever has its token can start runs and read samples.",
)
@click.option("--port", type=PORT, default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--collector-port", type=PORT, default=8080, show_default=True, help="Port of the collector.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Events per second of the demo.",
)
def up(demo: bool, host: str, ui_host: str, port: int, collector_port: int, rate: float) -> None:
    """Run everything: collector, Dagster and demo traffic.

    What the processes print is in the folder `logs` of the state folder. Ctrl-C stops them all, and so does the
    end of any of them.
    """
    from recsys_data.ingestion.streaming.collector.server import bind
    from recsys_data.operations.local.code_server import code_server
    from recsys_data.operations.local.dashboard import Dashboard, answers
    from recsys_data.operations.local.stopping import Stop
    from recsys_data.operations.local.supervisor import Supervisor
    from recsys_data.operations.ui.token import ui_token

    check_port(ui_host, port, "--port")
    check_port(host, collector_port, "--collector-port")
    ui, collector = f"http://{reachable(ui_host)}:{port}", f"http://{reachable(host)}:{collector_port}"
    with opened() as platform, only_one(platform.settings), code_server(platform.settings.data_dir) as code:
        settings = platform.settings
        bind(host, collector_port, keyless=not settings.keys).close()
        contracts = demo_contracts(settings) if demo else {}
        environment = environment_of(settings) | contracts
        token = ui_token(settings.data_dir)
        introduce(settings, ui, token, collector, contracts)
        with Stop() as stop, Supervisor(settings.process_logs_dir, environment) as supervisor:
            checks = {
                "collector": partial(answers, f"{collector}/health"),
                "code-server": code.listens,
                "webserver": partial(answers, f"{ui}/server_info", {"Authorization": f"Bearer {token}"}),
            }
            dashboard = Dashboard(platform, supervisor, checks)
            listen = ("--host", host, "--port", str(collector_port))
            traffic = ("simulate", "--rate", str(rate), "--to", collector)
            supervisor.start("collector", recsys_data("collect", *listen))
            # In turn: two processes that create Dagster's database at once fail on each other's tables.
            for name, arguments in dagster(code, ui_host, port).items():
                if not stop:
                    supervisor.start(name, arguments)
                    dashboard.watch(stop, until=name)
            if demo and not stop:
                supervisor.start("demo", ["-m", "recsys_data.cli.demo", *traffic])
            dashboard.watch(stop)
            click.echo("Stopping ...")


def recsys_data(*arguments: str) -> list[str]:
    """Python's arguments for a command of this command line."""
    return ["-m", "recsys_data.cli", *arguments]


def dagster(code: "CodeServer", host: str, port: int) -> dict[str, list[str]]:
    """Python's arguments for Dagster's processes by name, in the order in which they are started."""
    return {
        "code-server": code.arguments,
        "webserver": ["-m", "recsys_data.operations.ui", *code.clients, "--host", host, "--port", str(port)],
        "daemon": ["-m", "dagster._daemon", "run", *code.clients],
    }


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of the child processes: the same state folder, wherever they look from."""
    return environment() | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        f"{PREFIX}DIR": str(settings.data_dir),
        "PYTHONUNBUFFERED": "1",
    }


def demo_contracts(settings: Settings) -> dict[str, str]:
    """Contracts that take users and items from the demo's sources, as a variable for the child processes.

    Contracts of the user's own are left alone: the demo's are written, for comparison, and not used.
    """
    from recsys_data.simulator.shop.contracts import write_contracts

    folder = write_contracts(settings.data_dir)
    if settings.contracts:
        click.echo(f"Users and items of the demo are not collected: {PREFIX}CONTRACTS is {settings.contracts}.")
        return {}
    return {f"{PREFIX}CONTRACTS": str(folder)}


def introduce(settings: Settings, ui: str, token: str, collector: str, contracts: Mapping[str, str]) -> None:
    """Say where everything is; `contracts` is the variable that commands in other terminals need."""
    from recsys_data.operations.ui.token import FILE

    key = " -u WRITE_KEY:" if settings.keys else ""
    event = {
        "event_id": f"try-{secrets.token_hex(4)}",
        "type": "view",
        "user_id": "u1",
        "item_id": "i1",
        "event_ts": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # A terminal forgets what it shows; where output is kept, as by systemd, others may read it.
    opened_by = f"/?token={token}" if sys.stdout.isatty() else f"/?token=...  # it is in {settings.data_dir / FILE}"
    click.echo(f"Dagster UI  {ui}{opened_by}")
    click.echo(f"Collector   {collector}")
    click.echo(f"State       {settings.data_dir}")
    click.echo(f"Logs        {settings.process_logs_dir}")
    for name, folder in contracts.items():
        click.echo(f"Demo        export {name}={shlex.quote(folder)}  # its users and items, for other terminals")
    click.echo(f"Send one    curl{key} {collector}/v1/events -d '{json.dumps(event)}'")
    click.echo('Ask for it  recsys-data sql "SELECT type, count(*) FROM interactions GROUP BY ALL"')
    click.echo("Stop        Ctrl-C\n")


def reachable(host: str) -> str:
    """The host of an address for a client on this machine.

    >>> reachable("0.0.0.0"), reachable("::1")
    ('127.0.0.1', '[::1]')
    """
    host = LOOPBACK.get(host, host)
    return f"[{host}]" if ":" in host else host


def check_port(host: str, port: int, option: str) -> None:
    """Refuse a port that cannot be used, before anything is started.

    Raises:
        UserError: naming the option that chooses another.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # Two sockets may be bound to one address; only one listens.
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"Port {port} on {host} is in use. Stop what uses it, or choose another with {option}."
            ) from None
        raise UserError(f"Cannot listen on {host} port {port}: {error.strerror}. Change --host or {option}.") from None


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the state folder: a second supervisor would run a second daemon on the same schedules.

    Raises:
        Transient: another one runs.
    """
    with settings.up_lock.open("a+b") as file:
        if not try_lock(file):
            file.seek(0)
            raise Transient(
                f"`recsys-data up` runs on {settings.data_dir} already, as process {file.read().decode()}. Stop it "
                "first, or set RECSYS_DATA_DIR to another folder."
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield
