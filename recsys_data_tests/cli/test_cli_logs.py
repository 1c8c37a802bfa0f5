"""An event is followed from its request to its row by the logs of the processes, as an operator would."""

import base64
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from recsys_data.settings import Settings

KEY = "swordfish-1234"


def post(port: int, body: bytes, key: str, request_id: str = "") -> tuple[int, str]:
    """Send a request; returns the status and the id that the answer carries."""
    headers = {"Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}
    if request_id:
        headers["X-Request-Id"] = request_id
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/events", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["X-Request-Id"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["X-Request-Id"]


def event(event_id: str, **members: Any) -> bytes:
    given = {"event_id": event_id, "type": "view", "user_id": "u", "item_id": "i", "event_ts": "2026-01-01T00:00:00Z"}
    return json.dumps(given | members).encode()


def test_an_event_is_followed_from_its_request_to_its_row(
    run: Callable[..., Result], start: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LOG_FORMAT", "json"), ("LOG_LEVEL", "debug"), ("WRITE_KEYS", KEY)):
        monkeypatch.setenv(f"RECSYS_DATA_{name}", value)
    collector = start("collect", "--port", "0")
    listening = json.loads(collector.stderr.readline())
    port = int(re.search(r"port (\d+)", listening["message"])[1])
    assert post(port, event("before"), KEY) != post(port, event("x"), KEY)
    assert post(port, event("mine"), KEY, "order-4711") == (200, "order-4711")
    status, made = post(port, event("bad", type="rating", rating=-1), KEY, "no good\t")
    assert status == 200 and re.fullmatch("[0-9a-f]{16}", made)
    assert post(port, event("mine"), "wrong-key-5678", "refused")[0] == 401
    collector.send_signal(signal.SIGTERM)
    said = collector.stderr.read()
    ingest = start("ingest", "--until-empty")
    said_then = ingest.communicate()[1]
    assert ingest.returncode == 0
    row = json.loads(run("trace", "mine", "--json").stdout)["stored"][0]
    lines = [json.loads(line) for line in (said + said_then).splitlines()]
    (appended,) = [
        line
        for line in lines
        if line["message"] == "Appended." and line["log_start"] <= row["log_offset"] < line["log_end"]
    ]
    assert appended["request_ids"] == ["order-4711"] and "request_id" not in appended
    assert appended["log_partition"] == row["log_partition"]
    commits = [line for line in lines if line["message"] == "Committed."]
    assert any(line["snapshots"]["interactions"] == row["snapshot"] for line in commits)
    (rejected,) = [line for line in lines if line["message"] == "Rejected."]
    assert rejected["event_id"] == "bad" and rejected["reason"]
    for secret in (KEY, base64.b64encode(f"{KEY}:".encode()).decode(), "wrong-key-5678", "Basic "):
        assert secret not in said + said_then
