import base64
import json

import pytest

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


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/t", "{}", 401), ("/v1/none", "{}", 404), ("/v1/b", '{"writeKey": "good"}', 400), ("/health", "{}", 405)],
)
def test_errors_reach_the_page_that_asked(locked, path, body, status):
    answer = locked.post(path, content=body, headers={"Origin": "https://shop.example"})
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
