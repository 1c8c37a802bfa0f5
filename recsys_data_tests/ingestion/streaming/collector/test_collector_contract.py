"""What the collector writes, validated by the same code that judges the log."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming.collector import bodies
from recsys_data.ingestion.streaming.collector import event_lines as lines
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.decoding.decoded import DeadLetter
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.settings import Settings
from recsys_data_tests.ingestion.streaming.collector.conftest import builtin_types
from recsys_data_tests.support.contract_files import builtin, columns_of, load
from recsys_data_tests.support.decoding import decode_lines, decoder_of

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
TIMES = {"timestamp": "2026-01-02T11:59:59.5+00:00"}
SENT_AT = "2026-01-02T12:00:00Z"


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return decoder_of(load_contracts(), Settings().first_day, Settings().max_event_bytes)


def validate(
    decoder: Decoder, messages: list[dict], types: EventTypes | None = None
) -> tuple[list[dict], list[DeadLetter]]:
    types = types or builtin_types()
    upload = bodies.read_batch(msgspec.json.encode({"batch": messages, "sentAt": SENT_AT}))
    arrival = Arrival(NOW, SENT_AT, user_agent="ua", ip="203.0.113.9")
    return decode_lines(decoder, list(lines.segment_lines(upload, arrival, None, types)), now=NOW)


def test_good_messages_of_every_kind_are_accepted(decoder):
    product = {"product_id": 5, "price": "19.99", "quantity": 2.0, "position": "3", "name": "Monopoly"}
    tracks = {
        "Products Searched": {"query": "blue"},
        "Product List Viewed": {"list_id": 7, "products": [product, product]},
        "Product Viewed": product,
        "Product Reviewed": {**product, "rating": "4"},
        "Order Completed": {"order_id": "o", "total": 27.5, "currency": "USD", "products": [product, product]},
        "Order Refunded": {"order_id": "o", "total": -5},
        "Song Played": {"value": -1, "scroll_depth": 50, "dwell_ms": -1, "deep": {"a": [1, {"b": None}]}},
    }
    messages = [{"type": "track", "event": event, "properties": sent} for event, sent in tracks.items()]
    messages += [
        {"type": "page", "name": "Home", "context": {"page": {"path": "/", "url": "https://x", "title": "T"}}},
        {"type": "screen", "name": "Home", "context": {"os": {"name": "iOS"}, "network": {"wifi": True}}},
        {"type": "identify", "traits": {"plan": "pro"}},
        {"type": "alias", "previousId": "a"},
        {"type": "group", "groupId": "g", "traits": {}},
    ]
    sent = [{**TIMES, "userId": "u", "messageId": f"m{n}", **message} for n, message in enumerate(messages)]
    events, dead = validate(decoder, sent)
    assert dead == []
    assert len(events) == len(messages) + 2
    assert sum(event["in_identities"] for event in events) == 3
    views = {event["item_id"] for event in events if event["type"] == "view"}
    assert views == {"5"}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "7", "-2.5", "1e3", "x", "2026-01-02T12:00:00Z"])
)
JSON = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.sampled_from(["name", "version", "x", "id"]), SCALARS | st.lists(SCALARS), max_size=2)
)
PRODUCT = ["product_id", "sku", "price", "quantity", "value", "position", "rating", "currency", "x"]
PROPERTIES = [*PRODUCT, "query", "tag", "dwell_ms", "scroll_depth", "order_id", "list_id", "products", "session_id"]
PROPERTIES += ["propensity", "recommendation_score", "recommendation_model", "variant"]
CONTEXT = ["page", "os", "device", "network", "location", "consent", "campaign", "app", "userAgent", "ip", "locale"]
CONTEXT += ["timezone", "session", "url", "referrer", "library", "sessionId", "traits", "x"]
PLACES = st.fixed_dictionaries({}, optional=dict.fromkeys(("latitude", "longitude", "country", "lat"), JSON))
MESSAGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["track", "track", "page", "screen", "identify"]),
        "event": st.sampled_from(["Product Viewed", "Order Completed", "Product Reviewed", "scroll", "x"]),
        "properties": st.dictionaries(st.sampled_from(PROPERTIES), JSON, max_size=6)
        | st.fixed_dictionaries(
            {"products": st.lists(st.dictionaries(st.sampled_from(PRODUCT), JSON) | JSON, max_size=3)}
        ),
        "context": st.dictionaries(st.sampled_from(CONTEXT), JSON, max_size=5)
        | st.fixed_dictionaries({"location": PLACES}),
    },
    optional={"name": JSON, "traits": JSON, "integrations": JSON, "anonymousId": JSON},
)


@settings(max_examples=8, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=20, max_size=40))
def test_no_odd_value_costs_an_event(decoder, messages):
    sent = [{**TIMES, "userId": "u", "messageId": f"m{n}", **message} for n, message in enumerate(messages)]
    events, dead = validate(decoder, sent)
    assert [(letter.reason, letter.detail) for letter in dead] == []
    assert len(events) >= len(messages)


def test_an_event_type_of_the_contract_alone_is_accepted_from_native_and_segment_clients(tmp_path):
    document = builtin("interactions")
    kinds = next(column for column in columns_of(document) if column["name"] == "type")["enum"]
    kinds.append({"value": "try_on", "description": "an item was tried on"})
    contracts = load(tmp_path, document)
    types = EventTypes.of(contracts["interactions"])
    decoder = decoder_of(contracts)
    track = {"type": "track", "userId": "u", **TIMES}
    sent = [
        {**track, "messageId": "a", "event": "Try On", "properties": {"product_id": 5}},
        {**track, "messageId": "b", "event": "Try On", "properties": {"colour": "red"}},
    ]
    events, dead = validate(decoder, sent, types)
    assert ([(event["type"], event["item_id"]) for event in events], dead) == ([("try_on", "5"), ("custom", None)], [])
    native = {"event_id": "n", "type": "try_on", "user_id": "u", "item_id": "5", "event_ts": SENT_AT}
    upload = bodies.read_events(msgspec.json.encode([native, native | {"item_id": None}]))
    events, dead = decode_lines(decoder, lines.native_lines(upload, Arrival(NOW)), now=NOW)
    assert [event["type"] for event in events] == ["try_on"]
    assert [letter.reason for letter in dead] == ["missing_item"]
    assert types.required["try_on"] == {"item_id"}


def test_what_a_type_needs_is_what_the_rules_of_the_contract_say():
    required = builtin_types().required
    assert required["rating"] == {"item_id", "rating"}
    assert {name for name, needed in required.items() if not needed} == {"search", "page_view"}
    assert all("item_id" in needed for needed in required.values() if needed)
    assert "custom" not in required
