"""`recsys-data up`: everything on one machine, in one terminal.

Data flow: demo traffic -> collector -> event log -> Dagster's consumer runs -> lake -> serving, which logs impressions
to the event log; each a child process. The demo also updates a shop's database and exports, the sources of the
snapshots of users and items.
"""

import errno
import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.errors import Transient, UserError
from recsys_data.leases import file_lock
from recsys_data.operations.local.dagster_home import dagster_home
from recsys_data.operations.platform import Platform, opened
from recsys_data.settings import PREFIX, Settings, environment

PORT = click.IntRange(1, 65535)
# Two processes that create Dagster's database at once fail on each other's tables.
ONE_BY_ONE = ("code-server", "webserver")
ANSWER_SECONDS = 2.0
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
    help="The same for the Dagster UI. Anyone who has its token can start runs and see sample rows.",
)
@click.option(
    "--serving-host",
    default="127.0.0.1",
    show_default=True,
    help="The same for recommendations. Anyone who has a write key can ask for those of any user.",
)
@click.option("--port", type=PORT, default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--collector-port", type=PORT, default=8080, show_default=True, help="Port of the collector.")
@click.option("--serving-port", type=PORT, default=8090, show_default=True, help="Port of the recommendations.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="Events per second of the demo.",
)
def up(
    demo: bool,
    host: str,
    ui_host: str,
    serving_host: str,
    port: int,
    collector_port: int,
    serving_port: int,
    rate: float,
) -> None:
    """Run everything: collector, Dagster, recommendations and demo traffic.

    The output of the processes is in the folder `logs` of the state folder. Ctrl-C stops them all. If one of them
    ends, the others are stopped.
    """
    from recsys_data.ingestion.streaming.collector.server import bind
    from recsys_data.operations.local.code_server import code_server
    from recsys_data.operations.ui.token import ui_token

    check_port(ui_host, port, "--port")
    check_port(host, collector_port, "--collector-port")
    check_port(serving_host, serving_port, "--serving-port")
    ui, collector = f"http://{reachable(ui_host)}:{port}", f"http://{reachable(host)}:{collector_port}"
    serving = f"http://{reachable(serving_host)}:{serving_port}"
    with opened() as platform, only_one(platform.settings), code_server(platform.settings.data_dir) as code:
        settings = platform.settings
        for name, number in ((host, collector_port), (serving_host, serving_port)):
            bind(name, number, keyless=not settings.keys).close()
        contracts = demo_contracts(settings) if demo else {}
        token = ui_token(settings.ui_token_file)
        introduce(settings, ui, token, collector, serving, contracts)
        processes = {
            "collector": recsys_data("collect", "--host", host, "--port", str(collector_port)),
            "code-server": code.arguments,
            "webserver": ["-m", "recsys_data.operations.ui", *code.clients, "--host", ui_host, "--port", str(port)],
            "daemon": ["-m", "dagster._daemon", "run", *code.clients],
        }
        processes["online"] = recsys_data("online", "update", "--follow")
        if len(platform.log.partitions()) > 1:
            at = ("--host", serving_host, "--port", str(serving_port))
            processes["serving"] = recsys_data("serve", *at, "--shop", collector)
        else:
            # Whichever appended first would keep the other from it.
            click.echo(
                f"Serving is not started: the event log has one partition, the collector's ({PREFIX}LOG_PARTITIONS)."
            )
        if demo:
            traffic = ("simulate", "--rate", str(rate), "--to", collector)
            processes["demo"] = ["-m", "recsys_data.cli.demo", *traffic]
        checks = {
            "collector": partial(answers, f"{collector}/health"),
            "serving": partial(answers, f"{serving}/health"),
            "code-server": code.listens,
            "webserver": partial(answers, f"{ui}/server_info", {"Authorization": f"Bearer {token}"}),
        }
        supervise(platform, processes, checks, environment_of(settings) | contracts)


def supervise(
    platform: Platform,
    processes: Mapping[str, Sequence[str]],
    checks: Mapping[str, Callable[[], bool]],
    environment: Mapping[str, str],
) -> None:
    """Start processes in order, and show their state until asked to stop or until one ends.

    Args:
        platform: whose numbers are shown.
        processes: Python's arguments by name.
        checks: whether the process of that name answers.
        environment: of the processes.

    Raises:
        Permanent: a process ended.
    """
    from recsys_data.operations.local.dashboard import Dashboard
    from recsys_data.operations.local.stopping import Stop
    from recsys_data.operations.local.supervisor import Supervisor

    with Stop() as stop, Supervisor(platform.settings.process_logs_dir, environment) as supervisor:
        dashboard = Dashboard(platform, supervisor, checks)
        for name, arguments in processes.items():
            if stop:
                break
            supervisor.start(name, arguments)
            if name in ONE_BY_ONE:
                dashboard.watch(stop, until=name)
        dashboard.watch(stop)
        click.echo("Stopping ...")


def recsys_data(*arguments: str) -> list[str]:
    """Python's arguments for a command of this command line."""
    return ["-m", "recsys_data.cli", *arguments]


def answers(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Whether the URL answers 200."""
    import http.client
    import urllib.request

    request = urllib.request.Request(url, headers=dict(headers))
    try:
        # Environment variables for proxies are for other hosts.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=ANSWER_SECONDS):
            return True
    except (OSError, http.client.HTTPException):
        return False


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of the child processes, with the state folder as an absolute path."""
    return environment() | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        f"{PREFIX}DIR": str(settings.data_dir),
        "PYTHONUNBUFFERED": "1",
    }


def demo_contracts(settings: Settings) -> dict[str, str]:
    """Contracts that take users and items from the demo's sources, as a variable for the child processes.

    If the user has contracts of their own, those of the demo are written, for comparison, but not used.
    """
    from recsys_data.simulator.shop.contracts import write_contracts

    folder = write_contracts(settings.demo_dir)
    if settings.contracts:
        click.echo(f"Users and items of the demo are not collected: {PREFIX}CONTRACTS is {settings.contracts}.")
        return {}
    return {f"{PREFIX}CONTRACTS": str(folder)}


def introduce(
    settings: Settings, ui: str, token: str, collector: str, serving: str, contracts: Mapping[str, str]
) -> None:
    """Print where everything is; `contracts` is the variable that commands in other terminals need."""
    key = " -u WRITE_KEY:" if settings.keys else ""
    event = {
        "event_id": f"try-{secrets.token_hex(4)}",
        "type": "view",
        "user_id": "u1",
        "item_id": "i1",
        "event_ts": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # A terminal's output is not kept; that of a service is, as by systemd, and others may read it.
    opened_by = f"/?token={token}" if sys.stdout.isatty() else f"/?token=...  # it is in {settings.ui_token_file}"
    click.echo(f"Dagster UI  {ui}{opened_by}")
    click.echo(f"Collector   {collector}")
    click.echo(f"Serving     {serving}")
    click.echo(f"Demo shop   {serving}/shop/")
    click.echo(f"State       {settings.data_dir}")
    click.echo(f"Logs        {settings.process_logs_dir}")
    for name, folder in contracts.items():
        click.echo(f"Demo        export {name}={shlex.quote(folder)}  # its users and items, for other terminals")
    click.echo(f"Send one    curl{key} {collector}/v1/events -d '{json.dumps(event)}'")
    click.echo(f'Recommend   curl{key} {serving}/v1/recommend -d \'{{"user_id": "u1", "n": 3}}\'')
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
    path = settings.up_lock
    with file_lock(path, 0) as taken:
        if not taken:
            raise Transient(
                f"`recsys-data up` runs on {settings.data_dir} already, as process {path.read_text()}. Stop it first, "
                "or set RECSYS_DATA_DIR to another folder."
            )
        path.write_text(str(os.getpid()))
        yield
