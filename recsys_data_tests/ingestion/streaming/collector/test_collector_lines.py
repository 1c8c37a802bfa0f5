import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.ingestion.streaming.collector import bodies
from recsys_data.ingestion.streaming.collector import event_lines as lines
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival
from recsys_data_tests.ingestion.streaming.collector.conftest import builtin_types

MESSAGE = {"type": "track", "event": "x", "userId": "u1", "messageId": "m1"}
EVENT = {"event_id": "e1", "type": "like", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}


def batch_of(*messages: str) -> str:
    return '{"batch": [' + ", ".join(messages) + "]}"


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
    stored = log.lines()
    assert stored[1:3] == [b'{"torn":', b"\xff\xfe"]
    assert stored[4] == b"[1]"
    assert [json.loads(stored[n])["event_id"] for n in (0, 3)] == ["e1", "e1"]


def test_elements_that_are_no_events_are_logged_as_they_are(client, log):
    body = '[7,\n {"a": \n"b"}, "x", {"v": NaN}]'
    assert client.post("/v1/events", content=body).json() == {"accepted": 4}
    assert log.lines()[0] == b"7"
    assert json.loads(log.lines()[1])["a"] == "b"
    assert log.lines()[2:] == [b'"x"', b'{"v": NaN}']


def raw_batch(bad: bytes) -> bytes:
    good = [json.dumps({**MESSAGE, "messageId": f"m{n}", "note": "[{,"}).encode() for n in (1, 2)]
    return b'{"sentAt": null, "batch": [' + good[0] + b",\n " + bad + b" , " + good[1] + b"]}"


BAD = [
    b'{"type": "track", "x": "a\tb"}',
    b'{"type": "track", "x": "a\x00b"}',
    b'{"type": "track", "x": NaN}',
    b'{"type": "track", "x": "\\ud83d"}',
    b'{"type": "track", "x": "\\"}]", "y": "\x01"}',
    b'{"type": "track", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"type": "track", "x": caf\xe9}',
    b'{"type": "track" "x"}',
    b"nonsense",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_what_is_wrong_with_one_message_is_wrong_with_it_only(client, log, bad):
    assert client.post("/v1/batch", content=raw_batch(bad)).status_code == 200
    first, second, third = log.lines()
    assert [json.loads(line)["event_id"] for line in (first, third)] == ["m1", "m2"]
    assert second == bad
    native = json.dumps(EVENT).encode()
    assert client.post("/v1/events", content=b"[" + native + b"," + bad + b"]").json() == {"accepted": 2}
    assert log.lines()[4] == bad


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_a_byte_order_mark_is_no_part_of_the_body(client, log, path):
    body = json.dumps(MESSAGE) if path == "/v1/track" else batch_of(json.dumps(MESSAGE))
    assert client.post(path, content=b"\xef\xbb\xbf" + body.encode()).status_code == 200
    assert log.events()[0]["event_id"] == "m1"


def test_a_key_that_stands_twice_beside_a_number_that_is_none_loses_nothing(client, log):
    twice = '{"type": "track", "messageId": "m2", "properties": {"price": 1, "price": 2}}'
    body = batch_of('{"type": "track", "price": NaN}', twice, json.dumps(MESSAGE))
    assert client.post("/v1/batch", content=body).status_code == 200
    assert log.lines()[1] == twice.encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"batch": [{"type": "track"}], "batch": []}', "the key 'batch' twice"),
        ('{"batch": [{"type": "track"}], "b\\u0061tch": []}', "the key 'batch' twice"),
        ('{"a:": 1, "batch": [{"x": NaN}], "a\\u003a": []}', "the key 'a:' twice"),
        ('{"batch": [], "context": {"app": {"a": 1, "a": 2}}}', "`context` has the key 'a' twice"),
        ('{"batch": [], "context": {"a": NaN}}', "`context` is not JSON"),
        ('{"batch": [{"type": "track", "x": "a]}', "does not end"),
        ('{"batch": [{"type": "track", "x": [}]}', "does not match"),
        ('{"batch": [{"x": NaN}]} {}', "follows its end"),
    ],
)
def test_what_cannot_be_divided_among_the_messages_is_refused(client, log, body, reason):
    answer = client.post("/v1/batch", content=body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    assert log.lines() == []


def test_a_number_beyond_a_double_is_kept_as_it_is_spelled(client, log):
    message = '{"type": "track", "event": "Product Viewed", "messageId": "m1", "properties": {"price": 1e400}}'
    native = '{"event_id": "e1", "price": -1e400, "properties": {"x": 1E999}}'
    assert client.post("/v1/batch", content=batch_of(message)).status_code == 200
    assert client.post("/v1/events", content=native).status_code == 200
    first, second = log.lines()
    assert b'"properties":{"price":1e400}' in first
    assert b'"price":-1e400,"properties":{"x":1E999}' in second


def test_a_newline_within_a_string_stays_no_json(client, log):
    body = b"[" + json.dumps(EVENT).encode() + b',{"event_id": "e\n2"}]'
    assert client.post("/v1/events", content=body).status_code == 200
    assert not bodies.is_json(log.lines()[1])


def test_no_line_holds_a_newline(client, log):
    body = '{"batch": [{"type":\n"odd"},\n{"a":\n1,\n"a":2}]}'
    assert client.post("/v1/batch", content=body).status_code == 200
    assert len(log.lines()) == 2


def test_an_event_too_large_for_ingestion_is_logged(client, log):
    note = "x" * 40_000
    assert client.post("/v1/events", json={**EVENT, "properties": {"note": note}}).status_code == 200
    assert client.post("/v1/track", json={**MESSAGE, "properties": {"note": note}}).status_code == 200
    assert [event["properties"]["note"] for event in log.events()] == [note, note]


FRAGMENTS = st.sampled_from(
    [b'{"type": "track"}', b'{"batch": [', b"]}", b"{", b"}", b"[", b"]", b",", b":", b'"', b'"batch"', b"\n", b"NaN"]
    + [b"\\ud83d", b"\xff", b"7", b" ", b"null", b'{"event_id": "e"}\n', b'"writeKey": "k"', b"-", b"1e999"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12).map(b"".join), st.sampled_from(["batch", "message", "events"]))
def test_any_body_becomes_lines_or_is_refused_with_a_reason(body, kind):
    try:
        upload = getattr(bodies, f"read_{kind}")(body)
    except RequestError as refusal:
        assert refusal.status == 400
        return
    arrival = Arrival(datetime(2026, 1, 2, tzinfo=UTC))
    count = len(upload.items)
    found = (
        lines.native_lines(upload, arrival)
        if kind == "events"
        else lines.segment_lines(upload, arrival, None, builtin_types())
    )
    assert len(found) == count
    assert not any(b"\n" in line or line == b"" for line in found)
