import json
import math
from datetime import datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.ingestion.streaming.collector import bodies
from recsys_data.ingestion.streaming.collector import event_lines as lines
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival, parse
from recsys_data_tests.ingestion.streaming.collector.conftest import builtin_types

SENT = "2026-01-02T12:00:01Z"


def test_identify_alias_and_group_become_identity_statements(collect):
    [identify] = collect("identify", userId="u1", anonymousId="a1", traits={"plan": "pro"})
    [alias] = collect("alias", previousId=39239, userId="u1")
    [group] = collect("group", groupId="g1", traits={"name": "Initech"})
    assert (identify["type"], identify["user_id"], identify["anonymous_id"]) == ("identify", "u1", "a1")
    assert identify["traits"] == {"plan": "pro"}
    assert (alias["type"], alias["previous_id"], alias["user_id"]) == ("alias", "39239", "u1")
    assert (group["type"], group["group_id"], group["traits"]) == ("group", "g1", {"name": "Initech"})


def test_traits_of_an_identify_call_may_stand_in_its_context(collect):
    [found] = collect("identify", context={"traits": {"plan": "pro"}})
    assert found["traits"] == {"plan": "pro"}
    assert "traits" not in found["context"]


def test_a_message_about_nobody_is_logged(collect):
    [found] = collect("identify", userId=None)
    assert "user_id" not in found
    assert found["event_id"] == "m1"


@pytest.mark.parametrize("call", ["page", "screen"])
def test_page_and_screen_are_page_views(collect, call):
    [found] = collect(call, name="Home", category="Docs", properties={"path": "/h", "title": "T", "item_id": 5})
    assert (found["type"], found["event_name"], found["item_id"]) == ("page_view", "Home", "5")
    assert found["context"]["page"] == "/h"
    assert found["properties"] == {"path": "/h", "title": "T"}
    assert found["envelope"] == {"category": "Docs"} | ({"type": "screen"} if call == "screen" else {})


def test_a_page_is_known_by_its_context_before_its_name(collect):
    [by_context] = collect("page", name="Home", context={"page": {"path": "/a", "url": "http://a"}})
    [by_name] = collect("page", name="Home")
    assert (by_context["context"]["page"], by_context["context"]["url"]) == ("/a", "http://a")
    assert by_name["context"]["page"] == "Home"


def test_what_surrounds_a_message_is_kept(collect):
    [found] = collect(event="x", integrations={"All": True}, channel="server", version=2, properties="odd")
    assert found["envelope"] == {
        "integrations": {"All": True},
        "channel": "server",
        "version": 2,
        "properties": "odd",
    }


def test_the_library_is_the_source_and_the_session_is_found(collect):
    [found] = collect(event="x", context={"library": {"name": "analytics.js", "version": "2"}, "sessionId": 17})
    assert (found["source"], found["session_id"]) == ("analytics.js", "17")
    assert found["context"]["library"] == {"name": "analytics.js", "version": "2"}
    [found] = collect(event="x", properties={"session_id": "s"})
    assert found["session_id"] == "s"
    [found] = collect(event="x", context={"sessionId": "s"}, properties={"session_id": "t"})
    assert (found["session_id"], found["properties"]) == ("s", {"session_id": "t"})


def test_event_time_is_corrected_and_the_clients_time_kept(collect):
    [found] = collect(event="x", timestamp="2020-01-01T00:00:00Z", sentAt="2020-01-01T00:00:10Z")
    received, corrected = parse(found["received_at"]), parse(found["event_ts"])
    assert received is not None and corrected is not None
    assert (received - corrected).total_seconds() == 10
    assert (found["client_event_ts"], found["sent_at"]) == ("2020-01-01T00:00:00Z", "2020-01-01T00:00:10Z")


def test_a_message_without_a_time_happened_when_it_was_received(collect):
    [found] = collect(event="x", timestamp=None, sentAt=SENT)
    assert found["event_ts"] == found["received_at"]
    assert "client_event_ts" not in found


def test_an_original_timestamp_serves_where_there_is_no_other(collect):
    [found] = collect(event="x", originalTimestamp="2026-01-02T12:00:00Z", sentAt=SENT)
    assert found["client_event_ts"] == "2026-01-02T12:00:00Z"


def test_unreadable_times_are_passed_on(collect):
    [found] = collect(event="x", timestamp="soon", sentAt="now")
    assert (found["event_ts"], found["sent_at"]) == ("soon", "now")


def test_a_client_cannot_set_the_time_of_receipt(collect):
    [found] = collect(event="x", receivedAt="1999-01-01T00:00:00Z")
    assert found["received_at"] > "2020"
    assert found["envelope"] == {"receivedAt": "1999-01-01T00:00:00Z"}


def at(text: str) -> datetime:
    moment = parse(text)
    assert moment
    return moment


def ids(body: bytes, arrival: Arrival | None = None) -> list[str]:
    arrival = arrival or Arrival(at(SENT), SENT)
    found = lines.segment_lines(bodies.read_batch(body), arrival, None, builtin_types())
    return [msgspec.json.decode(line)["event_id"] for line in found]


def batch(*messages: dict, sent_at: str = SENT) -> bytes:
    return json.dumps({"batch": messages, "sentAt": sent_at}).encode()


def test_a_message_without_an_id_gets_the_same_id_when_it_is_sent_again():
    message = {"type": "track", "event": "x", "userId": "u", "timestamp": "2026-01-02T12:00:00Z"}
    first = ids(batch(message))
    again = ids(batch(message, sent_at="2026-01-03T09:00:00Z"), Arrival(at("2026-01-03T09:00:01Z")))
    assert first == again
    assert ids(batch({**message, "userId": "v"})) != first


def test_equal_messages_of_one_batch_are_two_messages():
    message = {"type": "track", "event": "x", "userId": "u"}
    found = ids(batch(message, message))
    assert len(set(found)) == 2
    assert ids(batch(message, message)) == found


def test_equal_messages_without_a_time_are_the_same_on_one_day_only():
    body = batch({"type": "track", "event": "x", "userId": "u"})
    arrivals = [
        Arrival(at(moment)) for moment in ("2026-01-02T01:00:00Z", "2026-01-02T23:00:00Z", "2026-01-03T01:00:00Z")
    ]
    morning, evening, tomorrow = (ids(body, arrival) for arrival in arrivals)
    assert morning == evening != tomorrow


def test_what_a_batch_says_of_its_messages_is_merged_into_each(client, log):
    message = {"type": "track", "event": "x", "userId": "u", "messageId": "m"}
    body = {
        "batch": [{**message, "context": {"locale": "de-DE", "ip": "8.8.8.8"}}],
        "context": {"locale": "en-US", "timezone": "Europe/Berlin"},
        "integrations": {"All": False},
        "messageId": "of the batch",
        "writeKey": "k",
    }
    assert client.post("/v1/batch", json=body).status_code == 200
    [found] = log.events()
    assert (found["context"]["locale"], found["context"]["timezone"]) == ("de-DE", "Europe/Berlin")
    assert found["event_id"] == "m"
    assert found["envelope"] == {"integrations": {"All": False}, "batch": {"messageId": "of the batch"}}


# --- Whatever a client sends ---

NAMES = st.sampled_from(
    ["product_id", "sku", "id", "price", "quantity", "value", "revenue", "currency"]
    + ["position", "rating", "query", "products", "order_id", "list_id", "name", "path"]
    + ["url", "referrer", "page", "os", "device", "network", "location", "latitude"]
    + ["longitude", "consent", "categoryPreferences", "Location", "campaign", "app", "userAgent", "ip"]
    + ["locale", "version", "wifi", "cellular", "traits", "session", "sessionId", "library"]
    + ["event", "messageId", "context", "properties", "category", "integrations", "x"]
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES |= st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(["19.99", "7", "Product Viewed", "4.5"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
EVENT_NAMES = st.sampled_from(
    ["Product Viewed", "Order Completed", "Product List Viewed", "rating", "Product Reviewed"]
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify", "alias", "group"])},
    optional={
        "event": EVENT_NAMES | VALUES,
        "userId": LEAVES,
        "anonymousId": VALUES,
        "properties": OBJECTS | VALUES,
        "context": OBJECTS | VALUES,
        "traits": VALUES,
        "name": VALUES,
        "previousId": VALUES,
        "groupId": VALUES,
        "integrations": VALUES,
        "x": VALUES,
    },
)


def leaves(value: object) -> set:
    """The scalars in `value`, numbers and plain numeric strings alike; what says nothing is left out."""
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()))
    if isinstance(value, list):
        return set().union(*map(leaves, value))
    if value is None or value == "":
        return set()
    if isinstance(value, bool):
        return {str(value)}
    try:
        number = float(value)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return {value}
    return {number if math.isfinite(number) else value}


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_nothing_that_a_client_sends_is_thrown_away(messages):
    sent = [{**message, "messageId": f"m{number}"} for number, message in enumerate(messages)]
    upload = bodies.read_batch(msgspec.json.encode({"batch": sent}))
    found = [
        msgspec.json.decode(line) for line in lines.segment_lines(upload, Arrival(at(SENT)), None, builtin_types())
    ]
    for message in sent:
        events = [e for e in found if e["event_id"].partition(":")[0] == message["messageId"]]
        assert events, message
        kept = leaves(events)
        call = {message.pop("type")}
        assert leaves(message) <= kept | call
