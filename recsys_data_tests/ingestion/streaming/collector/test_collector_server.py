import http.client
import json
import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.collector import connections, server
from recsys_data.ingestion.streaming.collector.server import bind, serve
from recsys_data.settings import Settings

EVENT = {"event_id": "e1", "type": "like", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}
BODY = json.dumps(EVENT).encode()
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def test_a_port_in_use_is_named(log):
    with bind("127.0.0.1", 0, keyless=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"Port {port} on 127.0.0.1 is in use.*--port"):
            serve(log, Settings(), port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_the_collector_stays_on_this_machine(host):
    with pytest.raises(UserError, match="RECSYS_DATA_WRITE_KEYS"):
        bind(host, 0, keyless=True)


def test_with_keys_it_may_be_reached_from_others():
    bind("0.0.0.0", 0, keyless=False).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_every_loopback_address_is_this_machine(host):
    bind(host, 0, keyless=True).close()


@pytest.mark.parametrize(("host", "port"), [("no such host", 8080), ("127.0.0.1", 70_000)])
def test_an_address_that_cannot_be_is_explained(host, port):
    with pytest.raises(UserError, match="--port"):
        bind(host, port, keyless=True)


def test_a_stopping_collector_finishes_what_was_begun(run, log):
    collector = run()
    with collector.connect() as connection:
        connection.sendall(HEAD + BODY[:10])
        time.sleep(0.1)
        collector.server.should_exit = True
        while not refuses(collector.port):
            time.sleep(0.01)
        connection.sendall(BODY[10:])
        assert answer_of(connection).startswith(b"HTTP/1.1 200")
    collector.thread.join(timeout=10)
    assert not collector.thread.is_alive()
    assert [event["event_id"] for event in log.events()] == ["e1"]


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_connection_serves_one_request_after_the_other(run, log):
    with httpx.Client(base_url=run().url) as client:
        for _ in range(3):
            assert client.post("/v1/events", json=EVENT).status_code == 200
    assert len(log.lines()) == 3


def test_a_client_reads_why_its_long_body_was_refused(run, log):
    connection = http.client.HTTPConnection("127.0.0.1", run(max_request_bytes=1_000_000).port, timeout=10)
    for _ in range(2):
        connection.request("POST", "/v1/events", body=b" " * 5_000_000)
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"1000000 bytes" in answer.read()
    connection.close()
    assert log.lines() == []


def test_a_client_reads_that_its_path_is_wrong_however_long_its_body(run):
    connection = http.client.HTTPConnection("127.0.0.1", run().port, timeout=10)
    for _ in range(2):
        connection.request("POST", "/v2/batch", body=b" " * 3_000_000)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (404, "Not Found")
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_request_that_does_not_begin_is_given_up(run, monkeypatch, sent):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    with run().connect() as connection:
        connection.sendall(sent)
        assert answer_of(connection) == b""


def test_a_second_request_that_does_not_begin_is_given_up(run, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with run().connect() as connection:
        connection.sendall(HEAD + BODY)
        time.sleep(0.1)
        connection.sendall(b"POST /v1/ev")
        assert answer_of(connection).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_given_up(run):
    with run().connect() as connection, pytest.raises(OSError):
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nX-Long: ")
        for _ in range(1000):
            connection.sendall(b"x" * 10_000)
            time.sleep(0.001)


def test_a_slow_body_may_take_longer_than_a_head(run, monkeypatch, log):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    with run().connect() as connection:
        connection.sendall(HEAD + BODY[:10])
        time.sleep(0.3)
        connection.sendall(BODY[10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert len(log.lines()) == 1


def test_more_connections_than_are_taken_are_reported_when_to_come_again(run, monkeypatch, log):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    collector = run()
    first, second = collector.connect(), collector.connect()
    for connection in (first, second):
        connection.sendall(HEAD + BODY)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    with collector.connect() as third:
        third.sendall(HEAD + BODY)
        refusal = answer_of(third).lower()
    assert refusal.startswith(b"http/1.1 503")
    assert b"retry-after: 1\r\n" in refusal
    first.sendall(HEAD + BODY)
    assert first.recv(1000).startswith(b"HTTP/1.1 200"), "who came in time is served"
    first.close()
    second.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(collector.server.server_state.connections) > 0:
        time.sleep(0.01)
    with collector.connect() as later:
        later.sendall(HEAD + BODY)
        assert later.recv(1000).startswith(b"HTTP/1.1 200")
    assert len(log.lines()) == 4


def test_a_flood_of_connections_is_closed_without_a_word(run, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    collector = run()
    with ExitStack() as opened:
        held = [opened.enter_context(collector.connect()) for _ in range(3)]
        assert answer_of(held[-1]) == b""
        held[0].sendall(HEAD + BODY)
        assert held[0].recv(1000).startswith(b"HTTP/1.1 200")
