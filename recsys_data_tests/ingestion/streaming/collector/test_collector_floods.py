"""What costs a client little to send costs the collector little, and the others nothing."""

import asyncio
import base64
import gzip
import json
import random
import threading
from functools import partial

import pytest

from recsys_data.ingestion.streaming.collector import app, bodies, parser, requests
from recsys_data.ingestion.streaming.collector.parser import SMALL_BYTES, Parser
from recsys_data.ingestion.streaming.collector.requests import MAX_GZIP_MEMBERS, Gunzip, RequestError

MESSAGE = {"type": "track", "event": "x", "userId": "u1", "messageId": "m1"}
EVENT = {"event_id": "e1", "type": "like", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}
PACKED = {"Content-Encoding": "gzip"}
LARGE = json.dumps([{**EVENT, "note": "x" * SMALL_BYTES}])


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


# --- Keys first ---


def test_a_wrong_key_in_the_header_is_refused_before_the_body_came(run):
    with run(write_keys="good").connect() as connection:
        key = basic("bad")["Authorization"].encode()
        connection.sendall(
            b"POST /v1/b HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 999999\r\n\r\n" % key
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "body", ["[" + "{}," * 100 + "{}]", "{\n" * 100, '{"writeKey": "bad"}', '{"writeKey": "bad', ""]
)
def test_a_body_without_a_right_key_is_not_parsed(open_client, monkeypatch, body):
    def unparsed(*_):
        raise AssertionError("a stranger's body was parsed")

    for name in ("read_batch", "read_message", "read_events"):
        monkeypatch.setattr(bodies, name, unparsed)
    client = open_client(write_keys="good, other")
    for path in ("/v1/b", "/v1/t", "/v1/events"):
        assert client.post(path, content=body).status_code == 401


@pytest.mark.parametrize("key", ["good", 'with "quotes" and \\', "ключ", "a/b"])
def test_a_key_in_the_body_is_found_however_json_spells_it(open_client, key):
    client = open_client(write_keys=key)
    for ascii_only in (True, False):
        spelled = json.dumps(key, ensure_ascii=ascii_only)
        for text in (spelled, spelled.replace("/", "\\/"), spelled.replace("g", "\\u0067")):
            for body in ('{"writeKey":%s,"batch":[]}', '{"batch": [{"writeKey": "of a message"}], "writeKey" :\n %s }'):
                assert client.post("/v1/b", content=(body % text).encode()).status_code == 200


def test_a_right_key_in_a_wrong_place_does_not_let_in(open_client, log):
    client = open_client(write_keys="good")
    for body in ({"batch": [{**MESSAGE, "writeKey": "good"}]}, {"batch": [MESSAGE], "x": {"writeKey": "good"}}):
        assert client.post("/v1/b", json=body).status_code == 401
    assert log.lines() == []


def test_strangers_do_not_use_up_what_clients_with_a_key_need(open_client, monkeypatch):
    monkeypatch.setattr(app, "MAX_QUEUE_BYTES", 8000)
    client = open_client(write_keys="good", max_request_bytes=2000)
    arrived, leave = threading.Event(), threading.Event()

    async def held():
        yield b" " * 1900
        arrived.set()
        await asyncio.to_thread(leave.wait, 30)

    stranger = client.start("POST", "/v1/events", content=held())
    assert arrived.wait(30)
    event = json.dumps([{**EVENT, "note": "x" * 500}]).encode()
    assert client.post("/v1/events", content=event).status_code == 429
    assert client.post("/v1/events", content=event, headers=basic("good")).status_code == 200
    leave.set()
    assert stranger.result(30).status_code == 401


# --- Gzip ---


def test_a_gzip_body_has_few_members(client, log):
    text = json.dumps(EVENT).encode() + b" " * 100
    pieces = [gzip.compress(text[at : at + 4]) for at in range(0, len(text), 4)]
    assert len(pieces) <= MAX_GZIP_MEMBERS
    assert client.post("/v1/events", content=b"".join(pieces), headers=PACKED).status_code == 200
    empty = gzip.compress(b"")
    for body in (gzip.compress(text) + empty * MAX_GZIP_MEMBERS, empty * 50_000):
        answer = client.post("/v1/events", content=body, headers=PACKED)
        assert (answer.status_code, "members" in answer.json()["error"]) == (400, True)
    assert len(log.lines()) == 1


def test_endless_members_are_not_unpacked(monkeypatch):
    begun = 0
    decompressobj = requests.zlib.decompressobj

    def counted(window):
        nonlocal begun
        begun += 1
        return decompressobj(window)

    monkeypatch.setattr(requests.zlib, "decompressobj", counted)
    with pytest.raises(RequestError, match="members"):
        Gunzip(1_000_000).feed(gzip.compress(b"") * 50_000, 1_000_000)
    assert begun == MAX_GZIP_MEMBERS


def test_a_gzip_header_without_end_is_refused(open_client):
    client = open_client(max_request_bytes=100_000)
    header = b"\x1f\x8b\x08\x08" + bytes(6)  # a file name follows
    answer = client.post("/v1/events", content=header + b"x" * 200_000, headers=PACKED)
    assert answer.status_code == 413


def test_a_body_at_the_limit_may_be_packed_however_badly():
    for size in (1000, 1_000_000):
        body = random.Random(1).randbytes(size)
        packed = gzip.compress(body, compresslevel=0)
        assert len(packed) > size
        assert Gunzip(size).feed(packed, size + 1) == body


# --- Many messages ---


@pytest.mark.parametrize("form", ["array", "lines", "batch"])
def test_a_body_holds_a_bounded_number_of_messages(open_client, log, form):
    most = 100
    client = open_client(max_request_bytes=most * bodies.LEAST_ITEM_BYTES)

    def send(count: int) -> int:
        one = '{"a":1}'
        joined = ",".join([one] * count)
        body = {"array": f"[{joined}]", "lines": "\n".join([one] * count), "batch": f'{{"batch":[{joined}]}}'}[form]
        return client.post("/v1/b" if form == "batch" else "/v1/events", content=body).status_code

    assert send(most) == 200
    assert send(most + 1) == 413
    assert len(log.lines()) == most


def test_too_many_messages_are_not_parsed_one_by_one(client, monkeypatch):
    def unparsed(_):
        raise AssertionError("a message was parsed")

    monkeypatch.setattr(bodies, "item", unparsed)
    assert client.post("/v1/events", content="[" + "{}," * 300_000 + "{}]").status_code == 413


def test_every_valid_event_fits_into_the_number_of_messages():
    shortest = {"event_id": "1", "type": "tag", "user_id": "1", "item_id": "1", "event_ts": "2026-01-02T03:04:05Z"}
    assert len(json.dumps(shortest, separators=(",", ":"))) >= bodies.LEAST_ITEM_BYTES


# --- Beside the event loop ---


def test_small_requests_are_answered_while_a_large_one_is_parsed(client, monkeypatch):
    read, begun, leave = bodies.read_events, threading.Event(), threading.Event()

    def slow(body, most):
        if len(body) > SMALL_BYTES:
            begun.set()
            assert leave.wait(30)
        return read(body, most)

    monkeypatch.setattr(bodies, "read_events", slow)
    large = client.start("POST", "/v1/events", content=LARGE)
    assert begun.wait(30)
    assert client.post("/v1/events", json=EVENT).status_code == 200
    assert not large.done()
    leave.set()
    assert large.result(30).status_code == 200


def scenario(steps):
    """Runs `steps(parser, start)` in a loop; `start(size)` begins a job, which notes its size when it runs."""

    async def main():
        done: list[int] = []
        gate = threading.Event()
        under_test = Parser()

        def job(size: int) -> int:
            assert gate.wait(30)
            done.append(size)
            return size

        def start(size: int) -> "asyncio.Task[int]":
            return asyncio.create_task(under_test.run(size, partial(job, size)))

        try:
            await steps(start, gate, done)
        finally:
            gate.set()
            under_test.close()

    asyncio.run(main())


def test_the_smallest_body_that_waits_is_parsed_first():
    async def steps(start, gate, done):
        sizes = [SMALL_BYTES + extra for extra in (5, 9, 1, 7, 1)]
        tasks = [start(size) for size in sizes]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*tasks) == sizes
        assert done == [sizes[0], *sorted(sizes[1:])]

    scenario(steps)


def test_who_waits_for_too_long_may_come_again(monkeypatch):
    monkeypatch.setattr(parser, "WAIT_SECONDS", 0.05)

    async def steps(start, gate, done):
        first, second = start(SMALL_BYTES + 1), start(SMALL_BYTES + 2)
        with pytest.raises(RequestError) as refusal:
            await second
        assert (refusal.value.status, refusal.value.retry_after) == (429, 1)
        gate.set()
        assert await first == SMALL_BYTES + 1
        assert await start(SMALL_BYTES + 3) == SMALL_BYTES + 3

    scenario(steps)


def test_who_goes_away_does_not_keep_the_others_waiting():
    async def steps(start, gate, done):
        first, second, third = (start(SMALL_BYTES + extra) for extra in (1, 2, 3))
        await asyncio.sleep(0)
        second.cancel()
        gate.set()
        assert await asyncio.wait_for(asyncio.gather(first, third), 30) == [SMALL_BYTES + 1, SMALL_BYTES + 3]

    scenario(steps)
