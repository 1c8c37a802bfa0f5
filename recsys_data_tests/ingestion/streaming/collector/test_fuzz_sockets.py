"""The real server, spoken to by sockets: requests that parsers of HTTP disagree on, and no HTTP at all."""

import json
import re
import resource
import socket
import time
from contextlib import suppress

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_data_tests.support.fuzzing import examples

EVENT = json.dumps({"event_id": "e1", "type": "like", "user_id": "u", "item_id": "i"}).encode()
LENGTH = b"Content-Length: %d" % len(EVENT)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENT), EVENT)
# How long the server may stay silent before it is taken to wait for more.
SECONDS = 0.5


def post(*headers: bytes, body: bytes = EVENT, target: bytes = b"/v1/events", version: bytes = b"HTTP/1.1") -> bytes:
    return (
        b"\r\n".join([b"POST " + target + b" " + version, b"Host: x", b"Connection: close", *headers, b"", b""]) + body
    )


def speak(port: int, sent: bytes) -> bytes:
    """Everything that the server says until it closes, or says nothing for a while."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection, suppress(OSError):
        connection.sendall(sent)
        while piece := connection.recv(65536):
            found += piece
    return found


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", said)]


def assert_sane(collector, log, said: bytes, before: int) -> None:
    """No defect shows, events are logged only where they are acknowledged, and the server still serves."""
    answers = statuses(said)
    assert all(status < 500 for status in answers), said
    assert b"Traceback" not in said
    if 200 not in answers:
        # What was acknowledged to nobody may be in the log, but a request that was refused may not.
        assert not answers or log.end_offsets()[0] == before, said
    assert httpx.get(f"{collector.url}/health").status_code == 200


AMBIGUOUS = {
    "two lengths": post(LENGTH, b"Content-Length: 5"),
    "two lengths in one": post(b"Content-Length: %d, 5" % len(EVENT)),
    "a negative length": post(b"Content-Length: -1"),
    "a signed length": post(b"Content-Length: +%d" % len(EVENT)),
    "a length in hexadecimal": post(b"Content-Length: 0x10"),
    "a length beyond every integer": post(b"Content-Length: " + b"9" * 40),
    "a length and chunks": post(LENGTH, b"Transfer-Encoding: chunked", body=CHUNKED),
    "chunks of another name": post(b"Transfer-Encoding: xchunked", LENGTH),
    "chunks that are not last": post(b"Transfer-Encoding: chunked, identity", body=CHUNKED),
    "chunks with a blank before the colon": post(b"Transfer-Encoding : chunked", LENGTH),
    "a chunk beyond every integer": post(b"Transfer-Encoding: chunked", body=b"f" * 20 + b"\r\n" + EVENT),
    "a chunk of negative length": post(b"Transfer-Encoding: chunked", body=b"-5\r\n" + EVENT),
    "a header over two lines": post(b"X-Long: a\r\n b", LENGTH),
    "a header with a NUL": post(b"X-Nul: a\x00b", LENGTH),
    "a header without a name": post(b": a", LENGTH),
    "a header without a colon": post(b"nothing", LENGTH),
    "a bare line feed": post(b"X-A: b\nX-C: d", LENGTH),
    "a bare carriage return": post(b"X-A: b\rX-C: d", LENGTH),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_a_proxy_may_read_otherwise_is_one_request_or_none(run, log, case: str) -> None:
    collector = run()
    smuggled = post(LENGTH, target=b"/smuggled")
    said = speak(collector.port, AMBIGUOUS[case].replace(b"Connection: close\r\n", b"") + smuggled)
    assert_sane(collector, log, said, 0)
    assert statuses(said)[:1] in ([], [200], [400]), said
    if statuses(said)[:1] == [200]:
        assert log.lines() == [line for line in log.lines() if json.loads(line)["event_id"] == "e1"]
    else:
        assert log.lines() == []


OTHER = {
    "nothing": b"",
    "line ends": b"\r\n" * 100,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 40,
    "HTTP/0.9": b"GET /metrics\r\n",
    "HTTP/9.9": post(LENGTH, version=b"HTTP/9.9"),
    "an absolute target": post(LENGTH, target=b"http://elsewhere/v1/events"),
    "a target with a NUL": post(LENGTH, target=b"/v1/events\x00"),
    "a target with bytes": post(LENGTH, target=b"/v1/\xff\xfe"),
    "no target": post(LENGTH, target=b""),
    "a way out": post(LENGTH, target=b"/../../../../etc/passwd"),
    "a target of a megabyte": post(LENGTH, target=b"/" + b"a" * 1_000_000),
    "a header of a megabyte": post(b"X-Long: " + b"a" * 1_000_000, LENGTH),
    "many headers": post(*[b"X-%d: a" % number for number in range(20_000)], LENGTH),
    "a body that is too short": post(b"Content-Length: 100"),
    "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
    "an upgrade": post(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: eA==", LENGTH),
    "h2c": post(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk", LENGTH),
    "an expectation": post(b"Expect: 200-ok", LENGTH),
}


@pytest.mark.parametrize("case", OTHER)
def test_what_is_no_request_does_no_harm(run, log, case: str) -> None:
    collector = run()
    assert_sane(collector, log, speak(collector.port, OTHER[case]), 0)


PIECES = st.one_of(
    st.sampled_from([*AMBIGUOUS.values(), *OTHER.values(), post(LENGTH), CHUNKED, EVENT, b"\r\n", b"0\r\n\r\n"]),
    st.binary(max_size=30),
)


@examples(25)
@given(pieces=st.lists(PIECES, min_size=1, max_size=3), place=st.integers(0, 300), junk=st.binary(max_size=4))
@example(pieces=[post(LENGTH)], place=4, junk=b"\x00")
def test_bytes_of_any_kind_do_no_harm(run, log, pieces: list[bytes], place: int, junk: bytes) -> None:
    collector = run.__dict__.setdefault("shared", None) or run()
    run.__dict__["shared"] = collector
    sent = b"".join(pieces)
    before = log.end_offsets()[0]
    assert_sane(collector, log, speak(collector.port, sent[:place] + junk + sent[place:]), before)


def test_many_that_never_finish_take_a_bounded_share_of_memory(run) -> None:
    collector = run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connections = []
    try:
        for _ in range(200):
            connection = collector.connect()
            connections.append(connection)
            # More than a head may have, and a body that begins and does not go on.
            with suppress(OSError):
                connection.sendall(post(b"Content-Length: 1000000", b"X: " + b"a" * 30_000, body=b"[" * 200_000))
        time.sleep(0.2)
        assert httpx.get(f"{collector.url}/health").status_code in (200, 503)
    finally:
        for connection in connections:
            connection.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 250 * 1024, f"{grown} KiB more"
