"""A collector over a real embedded log in a temporary folder."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette

from recsys_data.contracts.load import load_contracts
from recsys_data.ingestion.streaming.collector.app import create_app
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.collector.server import bind, server_for
from recsys_data.ingestion.streaming.log import Appended
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.settings import Settings


class FailingLog(EmbeddedLog):
    """An embedded log that refuses to append while `failure` is set."""

    failure: Exception | None = None

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        if self.failure:
            raise self.failure
        return super().append(lines)

    def lines(self) -> list[bytes]:
        """Everything that was appended, in order."""
        found: list[bytes] = []
        for partition in self.partitions():
            start = self.begin_offsets()[partition]
            while len(piece := self.read(partition, start, 1 << 20)):
                found += piece.data.splitlines()
                start = piece.end
        return found

    def events(self) -> list[dict[str, Any]]:
        """Everything that was appended, parsed."""
        return [msgspec.json.decode(line) for line in self.lines()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FailingLog]:
    found = FailingLog(tmp_path / "log", partitions=1, segment_bytes=1 << 24)
    yield found
    found.close()


class Client:
    """Calls an app from outside its event loop."""

    def __init__(self, app: Starlette, portal: BlockingPortal, peer: str = "127.0.0.1") -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 5000))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://collector")
        self._portal = portal

    def start(self, method: str, path: str, **sent: Any) -> Future[httpx.Response]:
        """Begin a request without waiting for its answer."""
        return self._portal.start_task_soon(partial(self._http.request, method, path, **sent))

    def request(self, method: str, path: str, **sent: Any) -> httpx.Response:
        return self.start(method, path, **sent).result(timeout=30)

    def post(self, path: str, **sent: Any) -> httpx.Response:
        return self.request("POST", path, **sent)

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)


@cache
def builtin_types() -> EventTypes:
    return EventTypes.of(load_contracts()["interactions"])


@pytest.fixture
def open_client(log: FailingLog) -> Iterator[Callable[..., Client]]:
    """Starts a collector with the given settings; `peer` is the address that its client calls from."""
    with start_blocking_portal() as portal, ExitStack() as running:

        def start(peer: str = "127.0.0.1", **settings: Any) -> Client:
            app = create_app(log, Settings(**settings), builtin_types())
            running.enter_context(portal.wrap_async_context_manager(app.router.lifespan_context(app)))
            return Client(app, portal, peer)

        yield start


@pytest.fixture
def client(open_client: Callable[..., Client]) -> Client:
    """A collector that needs no key."""
    return open_client()


@pytest.fixture
def collect(client: Client, log: FailingLog) -> Callable[..., list[dict[str, Any]]]:
    """Sends one Segment message and gives the events that it became."""

    def send(call: str = "track", **message: Any) -> list[dict[str, Any]]:
        before = len(log.lines())
        message = {"messageId": "m1", "userId": "u1", **message}
        answer = client.post(f"/v1/{call}", json=message)
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        return log.events()[before:]

    return send


class Running:
    """A collector that listens on a port of this machine, served by a thread."""

    def __init__(self, log: EmbeddedLog, settings: Settings) -> None:
        self.listener = bind("127.0.0.1", 0, keyless=False)
        self.port: int = self.listener.getsockname()[1]
        self.server = server_for(log, settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=30)
        self.listener.close()


@pytest.fixture
def run(log: FailingLog) -> Iterator[Callable[..., Running]]:
    """Serves a collector with the given settings on a free port."""
    with ExitStack() as running:

        def start(**settings: Any) -> Running:
            found = Running(log, Settings(**settings))
            found.thread.start()
            running.callback(found.stop)
            while not found.server.started:
                time.sleep(0.01)
            return found

        yield start
