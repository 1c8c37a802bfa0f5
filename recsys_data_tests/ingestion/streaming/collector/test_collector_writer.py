import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.collector import app, bodies
from recsys_data.ingestion.streaming.collector import group_commit as writer

EVENT = {"event_id": "e1", "type": "like", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}
SECONDS = 10


class Gate:
    """Holds every append until `open` is called, and remembers how many lines each had."""

    def __init__(self, log, monkeypatch):
        self.sizes: list[int] = []
        self._reached = threading.Semaphore(0)
        self._opened = threading.Semaphore(0)
        append = log.append

        def gated(lines: Sequence[bytes]) -> None:
            self.sizes.append(len(lines))
            self._reached.release()
            assert self._opened.acquire(timeout=SECONDS)
            append(lines)

        monkeypatch.setattr(log, "append", gated)

    def wait(self) -> None:
        assert self._reached.acquire(timeout=SECONDS)

    def open(self, times: int = 1) -> None:
        self._opened.release(times)


@pytest.fixture
def gate(log, monkeypatch):
    return Gate(log, monkeypatch)


def wait_until(client, sample: str) -> None:
    deadline = time.monotonic() + SECONDS
    while sample not in client.get("/metrics").text:
        assert time.monotonic() < deadline, sample


def test_an_answer_comes_only_after_the_append(client, gate, log):
    answer = client.start("POST", "/v1/events", json=EVENT)
    gate.wait()
    assert not answer.done()
    gate.open()
    assert answer.result(SECONDS).status_code == 200
    assert len(log.lines()) == 1


def test_requests_that_wait_are_appended_together(client, gate, log):
    first = client.start("POST", "/v1/events", json=EVENT)
    gate.wait()
    others = [client.start("POST", "/v1/events", json=[EVENT, EVENT]) for _ in range(5)]
    wait_until(client, "collector_waiting_requests 5.0")
    gate.open(2)
    assert [answer.result(SECONDS).status_code for answer in [first, *others]] == [200] * 6
    assert gate.sizes == [1, 10]
    assert len(log.lines()) == 11


def test_while_too_much_waits_requests_are_reported_to_come_again(open_client, gate, log, monkeypatch):
    monkeypatch.setattr(app, "MAX_QUEUE_BYTES", 5000)
    client = open_client()
    waiting = client.start("POST", "/v1/events", json={**EVENT, "properties": {"note": "x" * 2000}})
    gate.wait()
    refused = client.post("/v1/track", json={"event": "x", "userId": "u", "properties": {"note": "x" * 2000}})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    gate.open(2)
    assert waiting.result(SECONDS).status_code == 200
    assert client.post("/v1/events", json=EVENT).status_code == 200
    assert "collector_queue_bytes 0.0" in client.get("/metrics").text


def test_what_a_request_was_parsed_from_does_not_wait_with_its_lines(client, gate, log, monkeypatch):
    class Watched(list[Any]):
        """A list that can be referred to weakly."""

    alive: list[weakref.ref[Watched]] = []
    read = bodies.read_events

    def watched(body: bytes, most: int) -> bodies.Upload:
        upload = read(body, most)
        items = Watched(upload.items)
        alive.append(weakref.ref(items))
        return replace(upload, items=items)

    monkeypatch.setattr(bodies, "read_events", watched)
    answer = client.start("POST", "/v1/events", json=[EVENT, EVENT])
    gate.wait()
    gc.collect()
    assert [one() for one in alive] == [None]
    gate.open()
    assert answer.result(SECONDS).json() == {"accepted": 2}


def test_a_client_that_goes_away_does_not_stop_the_others(client, gate, log):
    first = client.start("POST", "/v1/events", json=EVENT)
    gate.wait()
    gone = client.start("POST", "/v1/events", json=EVENT)
    stays = client.start("POST", "/v1/events", json=EVENT)
    wait_until(client, "collector_waiting_requests 2.0")
    gone.cancel()
    gate.open(2)
    assert [answer.result(SECONDS).status_code for answer in (first, stays)] == [200, 200]
    assert "collector_queue_bytes 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("failure", [Transient("disk full"), OSError(28, "No space left"), ValueError("a defect")])
def test_while_the_log_fails_requests_are_reported_to_come_again(client, log, failure, caplog):
    assert client.get("/health").status_code == 200
    log.failure = failure
    for path, body in (("/v1/events", EVENT), ("/v1/batch", {"batch": [EVENT]})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.get("/health").status_code == 503
    assert client.get("/health").json()["last_failure"] == type(failure).__name__
    assert str(failure) in caplog.text
    log.failure = None
    assert client.post("/v1/events", json=EVENT).status_code == 200
    assert (client.get("/health").status_code, client.get("/health").json()["status"]) == (200, "ok")
    assert len(log.lines()) == 1


def test_without_traffic_an_ill_collector_asks_to_be_tried_again(client, log, monkeypatch):
    monkeypatch.setattr(writer, "ILL_SECONDS", 0.05)
    log.failure = Transient("disk full")
    client.post("/v1/events", json=EVENT)
    time.sleep(0.1)
    assert client.get("/health").status_code == 200


def test_metrics_count_requests_events_and_bytes(client, log):
    client.post("/v1/events", json=[EVENT, EVENT])
    client.post("/v1/batch", content="{")
    client.post("/v1/no-such-path")
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    size = sum(len(line) + 1 for line in log.lines())
    for sample in (
        'collector_requests_total{path="/v1/events",status="200"} 1.0',
        'collector_requests_total{path="/v1/batch",status="400"} 1.0',
        'collector_requests_total{path="other",status="404"} 1.0',
        "collector_events_appended_total 2.0",
        f"collector_bytes_appended_total {float(size)}",
        "collector_append_seconds_count 1.0",
        "collector_append_failures_total 0.0",
    ):
        assert sample in metrics.text


def test_two_collectors_in_one_process_count_for_themselves(open_client):
    first, second = open_client(), open_client()
    first.post("/v1/events", json=EVENT)
    assert "collector_events_appended_total 0.0" in second.get("/metrics").text
