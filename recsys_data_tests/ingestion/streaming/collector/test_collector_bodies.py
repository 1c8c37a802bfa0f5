import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator

import pytest

from recsys_data.ingestion.streaming.collector import requests

MESSAGE = {"type": "track", "event": "x", "userId": "u1", "messageId": "m1"}
EVENT = {"event_id": "e1", "type": "like", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}


def test_gzip_is_understood(client, log):
    body = gzip.compress(json.dumps({"batch": [MESSAGE]}).encode())
    assert client.post("/v1/batch", content=body, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert log.events()[0]["event_id"] == "m1"


def test_gzip_in_several_members_is_one_body(client, log):
    text = json.dumps(MESSAGE).encode()
    body = gzip.compress(text[:20]) + gzip.compress(text[20:])
    assert client.post("/v1/track", content=body, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert len(log.lines()) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (gzip.compress(json.dumps(MESSAGE).encode())[:-9], "truncated"),
        (gzip.compress(b"{}")[:10], "truncated"),
        (b"", "truncated"),
        (b'{"type": "track"}', "not gzip"),
        (gzip.compress(b"{}") + b"rest", "not gzip"),
    ],
    ids=["half", "header alone", "nothing", "plain text", "more behind it"],
)
def test_a_broken_gzip_body_is_refused(client, log, body, reason):
    answer = client.post("/v1/track", content=body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert log.lines() == []


def test_a_zip_bomb_is_refused_without_unpacking_it(open_client, log):
    client = open_client(max_request_bytes=100_000)
    bomb = gzip.compress(b"[" + b" " * 200_000_000 + b"]", compresslevel=1)
    began = time.perf_counter()
    answer = client.post("/v1/events", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert time.perf_counter() - began < 5
    assert log.lines() == []


def test_other_encodings_are_refused(client):
    answer = client.post("/v1/track", json=MESSAGE, headers={"Content-Encoding": "br"})
    assert answer.status_code == 415
    assert "'br'" in answer.json()["error"]


def test_a_body_above_the_limit_is_refused_and_one_at_the_limit_is_not(open_client):
    client = open_client(max_request_bytes=1000)
    event = json.dumps(EVENT).encode()
    fits = event + b" " * (1000 - len(event))
    assert client.post("/v1/events", content=fits).status_code == 200
    assert client.post("/v1/events", content=fits + b" ").status_code == 413
    packed = {"Content-Encoding": "gzip"}
    assert client.post("/v1/events", content=gzip.compress(fits), headers=packed).status_code == 200
    assert client.post("/v1/events", content=gzip.compress(fits + b" "), headers=packed).status_code == 413


def test_a_body_that_never_ends_is_not_read_for_ever(open_client):
    client = open_client(max_request_bytes=1000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    assert client.post("/v1/events", content=endless()).status_code == 413
    assert sent < 20_000


def test_a_body_that_comes_too_slowly_may_be_sent_again(client, monkeypatch):
    monkeypatch.setattr(requests, "READ_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    assert client.post("/v1/events", content=slow()).status_code == 408


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded"])
def test_json_may_come_as_any_content_type(client, log, kind):
    body = json.dumps(MESSAGE)
    assert client.post("/v1/t", content=body, headers={"Content-Type": kind}).status_code == 200
    assert len(log.lines()) == 1


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/batch", "{", "not JSON"),
        ("/v1/batch", "", "not JSON"),
        ("/v1/batch", "[]", "not a JSON object"),
        ("/v1/batch", "{}", "no `batch`"),
        ("/v1/batch", '{"batch": {}}', "array"),
        ("/v1/batch", '{"batch": [1}', "not JSON"),
        ("/v1/batch", '{"batch": [], "context": "\\ud8"}', "not JSON"),
        ("/v1/track", "nonsense", "not JSON"),
        ("/v1/track", "[1]", "not a JSON object"),
        ("/v1/events", "nonsense", "JSON"),
        ("/v1/events", "  \n ", "empty"),
        ("/v1/events", '{"a": 1,}\n{"b":', "JSON"),
        ("/v1/events", "[" * 100_000, "JSON"),
        ("/v1/batch", "[" * 100_000, "JSON"),
    ],
)
def test_what_no_retry_can_mend_is_refused_with_the_reason(client, log, path, body, reason):
    answer = client.post(path, content=body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert answer.json().keys() == {"error", "code", "message"}
    assert log.lines() == []
