"""Runs the collector: binds the port, serves until it is stopped, and stops without losing a request."""

import errno
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.collector.app import create_app
from recsys_data.ingestion.streaming.collector.connections import Connection, make_room
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.settings import Settings

logger = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
MAX_PORT = 65535
BACKLOG = 2048
MAX_CONNECTIONS = 2048
# Longer than SDKs pause between batches, so that they do not write to a connection that is being closed.
IDLE_SECONDS = 75
STOP_SECONDS = 30
SWITCH_SECONDS = 0.0005


def serve(log: EventLog, settings: Settings, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> None:
    """Serve until SIGTERM or SIGINT; then accept nothing more, finish what was begun, and return.

    Args:
        log: is written to; the caller closes it.
        settings: `keys` and `max_request_bytes` are used.
        host: name or address to listen on; beyond loopback only with write keys.
        port: 0 takes any free port.

    Raises:
        UserError: the address cannot be used, or would be open to others without a key.
    """
    serve_app(create_app(log, settings), "collector", settings, host, port)


def serve_app(app: Starlette, name: str, settings: Settings, host: str, port: int, shared: bool = False) -> None:
    """Serve an app as `serve` does; `name` is what it is called in the log, `shared` as for `bind`.

    Raises:
        UserError: see `serve`.
    """
    listener = bind(host, port, keyless=not settings.keys, shared=shared)
    with listener:
        at = listener.getsockname()
        logger.info("The %s listens on %s port %d.", name, at[0], at[1])
        # While a large body is parsed, the event loop takes the interpreter back after that time.
        sys.setswitchinterval(SWITCH_SECONDS)
        server_of(app).run(sockets=[listener])


def bind(host: str, port: int, keyless: bool, shared: bool = False) -> socket.socket:
    """A listening socket; `keyless` refuses every address but loopback.

    With `shared`, other processes of this user may listen there too: connections are spread over them.

    Raises:
        UserError: see `serve`.
    """
    if not 0 <= port <= MAX_PORT:
        raise UserError(f"There is no port {port}: expected 0 to {MAX_PORT}. Choose another with --port.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UserError(
            f"Cannot listen on {host} port {port}: {error}. Choose another with --host and --port."
        ) from None
    if keyless and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UserError(
            f"Without write keys the server listens on this machine only, and {host} can be reached from "
            "others. Set RECSYS_DATA_WRITE_KEYS, or use --host 127.0.0.1."
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(_unusable(host, port, error)) from None
    return listener


def _unusable(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop what uses it, or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs more rights than this user has. Choose one above 1023 with --port."
    return f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with --host and --port."


class Server(uvicorn.Server):
    """Returns after a signal; uvicorn's own raises it again, which ends the caller before its cleanup."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def server_for(log: EventLog, settings: Settings) -> Server:
    """The collector's server; see `server_of`."""
    return server_of(create_app(log, settings))


def server_of(app: Starlette) -> Server:
    """A server of an app, not started; setting its `should_exit` stops it as a signal does."""
    return Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=make_room(MAX_CONNECTIONS),
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
