import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.cli.support.delivery import MOST_REFUSED, CollectorTarget, in_groups
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.collector.server import bind, server_for
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings

Answer = tuple[int, dict[str, str]]


class Server:
    """Answers as it was set, one answer a request, then 200; keeps what it accepted."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = outer.answers.pop(0) if outer.answers else (200, {})
                if status == 200:
                    outer.bodies.append(body)
                    outer.headers.append({"path": self.path, **dict(self.headers)})
                if status:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")
                else:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


Opener = Callable[..., CollectorTarget]


@pytest.fixture
def opened(server: Server) -> Iterator[Opener]:
    """Targets of the server, which wait without waiting and write down how long they would have."""
    targets: list[CollectorTarget] = []

    def opened(slept: list[float] | None = None, **settings: Any) -> CollectorTarget:
        waits = [] if slept is None else slept
        targets.append(CollectorTarget(server.url, Settings(**settings), waits.append))
        return targets[-1]

    yield opened
    for one in targets:
        one.close()


def test_lines_arrive_in_order_in_requests_of_bounded_size(server: Server, opened: Opener) -> None:
    lines = [b'{"n":%d}' % number for number in range(1000)]
    place = opened(max_request_bytes=2000)
    place.deliver(lines)
    assert b"\n".join(server.bodies).split(b"\n") == lines
    assert max(map(len, server.bodies)) <= 1000
    assert {one["path"] for one in server.headers} == {"/v1/events"}


def test_overload_is_waited_out_as_long_as_it_says(server: Server, opened: Opener) -> None:
    server.answers = [(429, {"Retry-After": "7"}), (503, {}), (503, {})]
    slept: list[float] = []
    place = opened(slept)
    place.deliver([b"{}"])
    assert server.bodies == [b"{}"]
    assert slept == [7.0, 1.0, 2.0]


def test_a_connection_that_breaks_is_opened_again(server: Server, opened: Opener) -> None:
    place = opened(slept := [])
    place.deliver([b'{"n":1}'])
    server.answers = [(0, {})]
    place.deliver([b'{"n":2}'])
    assert server.bodies == [b'{"n":1}', b'{"n":2}']
    assert len(slept) == 1


def test_lines_refused_alone_go_with_the_next_ones(server: Server, opened: Opener) -> None:
    server.answers = [(400, {})]
    place = opened()
    place.deliver([b"not JSON"])
    place.deliver([b"{}"])
    assert server.bodies == [b"not JSON\n{}"]


def test_lines_refused_to_the_end_are_reported(
    server: Server, opened: Opener, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [(400, {})]
    place = opened()
    place.deliver([b"not JSON"])
    place.close()
    assert "rejected 1 lines" in capsys.readouterr().err


def test_a_collector_that_refuses_everything_ends_it(server: Server, opened: Opener) -> None:
    server.answers = [(400, {})] * 5
    place = opened()
    with pytest.raises(Permanent, match="answered 400"):
        for _ in range(5):
            place.deliver([b"x"] * MOST_REFUSED)


def test_the_write_key_is_sent_and_a_wrong_one_explained(server: Server, opened: Opener) -> None:
    place = opened(write_keys="secret, other")
    place.deliver([b"{}"])
    assert server.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"secret:").decode()
    server.answers = [(401, {})]
    with pytest.raises(Permanent, match="RECSYS_DATA_WRITE_KEYS") as caught:
        place.deliver([b"{}"])
    assert "secret" not in str(caught.value)


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    place = CollectorTarget("http://127.0.0.1:1", Settings(), lambda _: pytest.fail("waited"))
    with pytest.raises(Transient, match="recsys-data collect"):
        place.deliver([b"{}"])


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))), st.integers(1, 60))
def test_groups_keep_every_line_in_order(lines: list[bytes], most: int) -> None:
    groups = list(in_groups(lines, most))
    assert [line for group in groups for line in group] == lines
    assert all(len(group) == 1 or sum(len(line) + 1 for line in group) <= most for group in groups)


def test_simulated_traffic_reaches_the_log_through_a_collector(
    run: Callable[..., Result], settings: Settings, status: Callable[[], dict[str, Any]]
) -> None:
    log = open_log(msgspec.structs.replace(settings, write_keys=""))
    listener = bind("127.0.0.1", 0, keyless=True)
    collector = server_for(log, settings)
    thread = threading.Thread(target=collector.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        run("simulate", "--events", "600", "--to", f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        collector.should_exit = True
        thread.join()
        listener.close()
        log.close()
    run("ingest", "--until-empty")
    found = status()
    # The collector leaves out empty lines, of which there are a few among the faults at most.
    assert 595 <= found["ledger"]["read"] <= 600
    assert found["ledger"]["balanced"]
    assert found["log"]["lag_events"] == 0
