import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator

import pytest

from recsys_data.ingestion.collector import requests

MESSAGE = {"type": "track", "event": "x", "userId": "u1", "messageId": "m1"}
EVENT = {
    "event_id": "e1",
    "type": "like",
    "user_id": "u1",
    "item_id": "i1",
    "event_ts": "2026-01-02T03:04:05Z",
}
SHORT = {"track": "t", "page": "p", "screen": "s", "identify": "i", "alias": "a", "group": "g"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def batch_of(*messages: str) -> str:
    return '{"batch": [' + ", ".join(messages) + "]}"


# --- Paths ---


@pytest.mark.parametrize("call", SHORT)
def test_every_call_has_a_path_and_a_short_path(client, log, call):
    for path in (call, SHORT[call]):
        answer = client.post(f"/v1/{path}", json={**MESSAGE, "type": "of no account"})
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    native = {"track": "custom", "page": "page_view", "screen": "page_view"}.get(call, call)
    assert [event["type"] for event in log.events()] == [native] * 2


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/v1/import"])
def test_batches_have_three_paths(client, log, path):
    batch = [MESSAGE, {**MESSAGE, "messageId": "m2", "type": "identify"}]
    answer = client.post(path, json={"batch": batch, "sentAt": "2026-01-02T03:04:05Z"})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert [event["event_id"] for event in log.events()] == ["m1", "m2"]


def test_an_import_keeps_its_times_and_says_nothing_of_the_importer(open_client, log):
    client = open_client(peer="203.0.113.9")
    message = {**MESSAGE, "timestamp": "2012-12-02T00:30:08Z"}
    client.post("/v1/import", json={"batch": [message], "sentAt": "2012-12-03T00:00:00Z"})
    [event] = log.events()
    assert event["event_ts"] == "2012-12-02T00:30:08Z"
    assert "client_event_ts" not in event
    assert "context" not in event


def test_unknown_paths_and_methods_are_explained(client):
    for method, path, status in (
        ("POST", "/v2/track", 404),
        ("GET", "/v1/batch", 405),
        ("POST", "/health", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert path in answer.json()["error"]


def test_an_empty_batch_is_a_success(client, log):
    assert client.post("/v1/batch", json={"batch": []}).status_code == 200
    assert client.post("/v1/events", json=[]).json() == {"accepted": 0}
    assert log.lines() == []


# --- Keys ---


@pytest.fixture
def locked(open_client):
    return open_client(write_keys="good, other")


@pytest.mark.parametrize("path", ["/v1/track", "/v1/events"])
def test_a_key_is_taken_from_the_header_or_from_the_body(locked, log, path):
    for key in ("good", "other"):
        assert locked.post(path, json=EVENT, headers=basic(key)).status_code == 200
        assert locked.post(path, json={**EVENT, "writeKey": key}).status_code == 200
    assert len(log.lines()) == 4


def test_a_batch_may_carry_the_key(locked):
    assert locked.post("/v1/batch", json={"batch": [MESSAGE], "writeKey": "good"}).status_code == 200
    bearer = {"Authorization": "Bearer token"}
    assert locked.post("/v1/batch", json={"batch": [], "writeKey": "good"}, headers=bearer).status_code == 200


@pytest.mark.parametrize("body", [{}, {"writeKey": "bad"}, {"writeKey": 1}, {"writeKey": "goo"}, {"writeKey": ""}])
def test_a_wrong_key_is_refused(locked, log, body):
    answer = locked.post("/v1/batch", json={"batch": [MESSAGE], **body})
    assert answer.status_code == 401
    assert "write key" in answer.json()["error"]
    assert log.lines() == []


@pytest.mark.parametrize("header", [basic("bad"), basic(""), {"Authorization": "Basic %%%"}])
def test_a_wrong_key_in_the_header_is_not_mended_by_the_body(locked, log, header):
    body = {"batch": [MESSAGE], "writeKey": "good"}
    assert locked.post("/v1/batch", json=body, headers=header).status_code == 401
    assert log.lines() == []


def test_without_keys_any_key_will_do(client):
    assert client.post("/v1/track", json=MESSAGE, headers=basic("anything")).status_code == 200


def test_a_key_reaches_neither_the_log_nor_the_answer(locked, log, caplog):
    body = json.dumps({"batch": [MESSAGE | {"writeKey": "good"}, {"type": "odd", "writeKey": "good"}]})
    bad_line = '{"batch": [{"writeKey": "good", "price": NaN}]}'
    for content in (body, bad_line):
        assert locked.post("/v1/batch", content=content, headers=basic("good")).status_code == 200
    locked.post("/v1/events", content=json.dumps([{**EVENT, "writeKey": "good"}]), headers=basic("good"))
    answer = locked.post("/v1/track", json={**MESSAGE, "writeKey": "a wrong one"})
    stored = b"".join(log.lines())
    assert stored.count(b"m1") == 1
    assert b"good" not in stored
    assert "wrong one" not in answer.text
    assert "good" not in caplog.text


# --- Bodies ---


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


# --- Messages and events that make no sense ---


def test_odd_messages_of_a_batch_are_logged_as_they_are_beside_good_ones(client, log):
    odd = [7, "x", None, {"messageId": "n"}, {"type": "unheard of"}, {"type": ["track"]}]
    answer = client.post("/v1/batch", json={"batch": [*odd, MESSAGE]})
    assert answer.status_code == 200
    assert log.events()[:-1] == odd
    assert log.events()[-1]["event_id"] == "m1"


def test_a_number_that_is_none_spoils_its_own_message_only(client, log):
    body = batch_of('{"type": "track", "price": NaN}', json.dumps(MESSAGE))
    assert client.post("/v1/batch", content=body).status_code == 200
    bad, good = log.lines()
    assert b"NaN" in bad
    assert json.loads(good)["event_id"] == "m1"


@pytest.mark.parametrize("raw", ['{"type": "track", "a": 1, "a": 2}', '{"type":"track","x":{"a" :1,"a":2}}'])
def test_a_key_that_stands_twice_is_left_to_ingestion(client, log, raw):
    for path, body in (("/v1/track", raw), ("/v1/batch", batch_of(raw)), ("/v1/events", raw)):
        assert client.post(path, content=body).status_code == 200
    assert log.lines() == [raw.encode()] * 3


def test_a_colon_within_a_string_is_no_key(client, log):
    raw = '{"type": "track", "messageId": "m1", "event": "a\\":b", "userId" : "u", "x": "\\u0022:"}'
    assert client.post("/v1/track", content=raw).status_code == 200
    assert log.events()[0]["event_name"] == 'a":b'


def test_a_message_nested_too_deeply_spoils_itself_only(client, log):
    deep = '{"type": "track", "properties": {"x": ' + "[" * 900 + "]" * 900 + "}}"
    body = batch_of(deep, json.dumps(MESSAGE))
    assert client.post("/v1/batch", content=body).status_code == 200
    first, second = log.lines()
    assert b"[" * 900 in first
    assert json.loads(second)["event_id"] == "m1"


def test_native_events_get_the_time_of_receipt_and_are_otherwise_as_sent(client, log):
    sent = {
        **EVENT,
        "received_at": "1999-01-01T00:00:00Z",
        "anything": {"else": [1, 2.5, None]},
        "big": 2**70,
    }
    assert client.post("/v1/events", json=sent).json() == {"accepted": 1}
    [event] = log.events()
    assert event.pop("received_at") > "2020"
    del sent["received_at"]
    assert event == sent


def test_native_event_times_are_corrected_once(client, log):
    late = {**EVENT, "event_ts": "2020-01-01T00:00:00Z", "sent_at": "2020-01-01T00:00:05Z"}
    before = {**late, "client_event_ts": "2019-12-31T00:00:00Z"}
    client.post("/v1/events", json=[late, before, {**late, "sent_at": "soon"}])
    corrected, kept, unreadable = log.events()
    assert corrected["client_event_ts"] == "2020-01-01T00:00:00Z"
    assert corrected["event_ts"][:4] == corrected["received_at"][:4] != "2020"
    assert kept["event_ts"] == unreadable["event_ts"] == "2020-01-01T00:00:00Z"


def test_lines_are_events_and_a_bad_line_spoils_itself_only(client, log):
    body = json.dumps(EVENT).encode() + b'\n\n  {"torn": \r\n\xff\xfe\n' + json.dumps(EVENT).encode() + b"\n[1]\n"
    answer = client.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.json() == {"accepted": 5}
    lines = log.lines()
    assert lines[1:3] == [b'{"torn":', b"\xff\xfe"]
    assert lines[4] == b"[1]"
    assert [json.loads(lines[n])["event_id"] for n in (0, 3)] == ["e1", "e1"]


def test_elements_that_are_no_events_are_logged_as_they_are(client, log):
    body = '[7,\n {"a": \n"b"}, "x", {"v": NaN}]'
    assert client.post("/v1/events", content=body).json() == {"accepted": 4}
    assert log.lines()[0] == b"7"
    assert json.loads(log.lines()[1])["a"] == "b"
    assert log.lines()[2:] == [b'"x"', b'{"v": NaN}']


def test_no_line_holds_a_newline(client, log):
    body = '{"batch": [{"type":\n"odd"},\n{"a":\n1,\n"a":2}]}'
    assert client.post("/v1/batch", content=body).status_code == 200
    assert len(log.lines()) == 2


def test_an_event_too_large_for_ingestion_is_logged(client, log):
    note = "x" * 40_000
    assert client.post("/v1/events", json={**EVENT, "properties": {"note": note}}).status_code == 200
    assert client.post("/v1/track", json={**MESSAGE, "properties": {"note": note}}).status_code == 200
    assert [event["properties"]["note"] for event in log.events()] == [note, note]


# --- Browsers and peers ---


def test_a_preflight_is_answered_without_a_key(locked):
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = locked.request("OPTIONS", "/v1/t", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"


@pytest.mark.parametrize(("path", "status"), [("/v1/t", 401), ("/v1/none", 404), ("/v1/b", 400), ("/health", 405)])
def test_errors_reach_the_page_that_asked(locked, path, status):
    answer = locked.post(path, content="{}", headers={"Origin": "https://shop.example"})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_request_says_what_the_message_does_not(open_client, log):
    client = open_client(peer="203.0.113.9")
    agent = {"User-Agent": "Mozilla/5.0"}
    client.post("/v1/track", json=MESSAGE, headers=agent)
    client.post("/v1/track", json={**MESSAGE, "context": {"ip": "8.8.8.8", "userAgent": "own"}}, headers=agent)
    first, second = (event["context"] for event in log.events())
    assert (first["ip"], first["user_agent"]) == ("203.0.113.9", "Mozilla/5.0")
    assert (second["ip"], second["user_agent"]) == ("8.8.8.8", "own")


def test_a_peer_on_this_machine_says_nothing_of_the_user(client, log):
    client.post("/v1/track", json=MESSAGE, headers={"X-Forwarded-For": "8.8.8.8"})
    assert "ip" not in log.events()[0]["context"]
