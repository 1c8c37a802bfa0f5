import json
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.sources.datasets import IMPORTERS

VISIT = {"visitorId": "v1", "eventTime": "2026-01-02T03:04:05Z"}


def file_of(folder: Path, *events: dict | bytes) -> Path:
    path = folder / "user_events.json"
    path.write_bytes(b"\n".join(e if isinstance(e, bytes) else json.dumps(e).encode() for e in events))
    return path


@pytest.fixture
def mapped(tmp_path, events):
    """The native events of one Google event, without what all of them share."""

    def run(**fields):
        found = events("google-retail", file_of(tmp_path, VISIT | fields))
        assert {event.pop("event_ts") for event in found} == {VISIT["eventTime"]}
        assert {event.pop("anonymous_id") for event in found} == {"v1"}
        assert {event.pop("source") for event in found} == {"google-retail"}
        assert len({event.pop("event_id") for event in found}) == len(found)
        return found

    return run


def product(identifier: str, **fields) -> dict:
    return {"product": {"id": identifier}} | fields


def test_real_events_keep_their_order_and_are_accepted(public_data, load, events, outcomes):
    path = public_data / "google-retail" / "user_events.json"
    found = events("google-retail", path)
    assert [event["type"] for event in found] == ["page_view", "search", "search", "view"]
    assert [event.get("query") for event in found][1:3] == [
        "RockerJeans teenagers blue jeans",
        "SocksUnlimited teenagers black socks",
    ]
    assert (found[3]["item_id"], found[3]["quantity"]) == ("GGCOGAEC100616", 3)
    assert outcomes(load("google-retail", path)) == ["accepted"] * 4
    assert load("google-retail", path) == load("google-retail", path)


def test_real_invalid_event_is_rejected_for_its_type_and_the_others_accepted(public_data, load, outcomes):
    lines = load("google-retail", public_data / "google-retail" / "user_events_some_invalid.json")
    assert outcomes(lines) == ["accepted", "unknown_type", "accepted", "accepted"]
    assert json.loads(lines[1])["type"] == "invalid"


@pytest.mark.parametrize(
    ("event_type", "page"),
    [("home-page-view", "home"), ("category-page-view", "category"), ("shopping-cart-page-view", "cart")],
)
def test_pages_are_page_views(mapped, event_type, page):
    (event,) = mapped(eventType=event_type, pageCategories=["Sales > Shirts"])
    assert event == {
        "type": "page_view",
        "event_name": event_type,
        "properties": {"pageCategories": ["Sales > Shirts"]},
        "context": {"page": page},
    }


def test_products_of_an_order_are_a_purchase_each_and_its_revenue_is_not_divided(mapped):
    transaction = {"id": "t7", "revenue": 30.5, "currencyCode": "USD", "tax": 2}
    found = mapped(
        eventType="purchase-complete",
        productDetails=[product("a", quantity=2), product("b", quantity=1, inventoryId="x")],
        purchaseTransaction=transaction,
        cartId="c1",
    )
    rest = {"purchaseTransaction": {"revenue": 30.5, "tax": 2}, "cartId": "c1"}
    shared = {"type": "purchase", "event_name": "purchase-complete", "order_id": "t7", "currency": "USD"}
    assert found == [
        shared | {"item_id": "a", "quantity": 2, "properties": rest},
        shared | {"item_id": "b", "quantity": 1, "properties": rest | {"productDetails": {"inventoryId": "x"}}},
    ]


def test_order_of_one_product_is_worth_its_revenue(mapped):
    transaction = {"id": "t7", "revenue": 30.5, "currencyCode": "USD"}
    (event,) = mapped(eventType="purchase-complete", productDetails=[product("a")], purchaseTransaction=transaction)
    assert event["value"] == 30.5
    assert event["properties"] == {"purchaseTransaction": {"revenue": 30.5}}


@pytest.mark.parametrize(
    ("event_type", "native"),
    [("detail-page-view", "view"), ("add-to-cart", "add_to_cart"), ("remove-from-cart", "remove_from_cart")],
)
def test_products_are_an_event_each(mapped, event_type, native):
    found = mapped(eventType=event_type, productDetails=[product("a"), product("b")])
    assert [(event["type"], event["item_id"]) for event in found] == [(native, "a"), (native, "b")]


def test_products_of_a_search_are_impressions_with_their_place(mapped):
    found = mapped(
        eventType="search",
        searchQuery="socks",
        offset=24,
        attributionToken="tok",
        productDetails=[product("a"), product("b")],
    )
    assert [(e["type"], e.get("item_id"), e.get("position"), e["recommendation_id"]) for e in found] == [
        ("search", None, None, "tok"),
        ("impression", "a", 25, "tok"),
        ("impression", "b", 26, "tok"),
    ]


def test_user_and_circumstances_have_their_columns_and_the_rest_is_kept(mapped):
    (event,) = mapped(
        eventType="home-page-view",
        userInfo={"userId": "u1", "userAgent": "UA", "ipAddress": "192.0.2.7", "directUserRequest": True},
        sessionId="s1",
        uri="https://shop.example/",
        referrerUri="https://search.example/",
        attributes={"size": {"text": ["L"]}},
        experimentIds=["e1"],
    )
    assert event == {
        "type": "page_view",
        "event_name": "home-page-view",
        "user_id": "u1",
        "session_id": "s1",
        "properties": {
            "userInfo": {"directUserRequest": True},
            "attributes": {"size": {"text": ["L"]}},
            "experimentIds": ["e1"],
        },
        "context": {
            "page": "home",
            "url": "https://shop.example/",
            "referrer": "https://search.example/",
            "user_agent": "UA",
            "ip": "192.0.2.7",
        },
    }


def test_products_of_other_events_are_kept_unmapped(mapped):
    (event,) = mapped(eventType="shopping-cart-page-view", productDetails=[product("a")])
    assert event["properties"] == {"productDetails": [product("a")]}


def test_events_are_ordered_by_time_whatever_its_offset_and_lines_without_one_come_first(tmp_path, load):
    def at(time):
        return {"eventType": "home-page-view", "visitorId": time, "eventTime": time}

    times = ["2026-01-02T12:00:00Z", "2026-01-02T11:30:00+02:00", "2026-01-02T09:45:00.000000Z", "soon"]
    lines = load("google-retail", file_of(tmp_path, *map(at, times), b"no json"))
    assert lines.pop(1) == b"no json"
    assert [json.loads(line)["event_ts"] for line in lines] == [times[3], times[1], times[2], times[0]]


def test_exact_repetitions_are_events_of_their_own_and_named_by_their_count(tmp_path, events):
    event = VISIT | {"eventType": "detail-page-view", "productDetails": [product("a"), product("b")]}
    other = event | {"visitorId": "v2"}
    ids = [e["event_id"].split(":") for e in events("google-retail", file_of(tmp_path, event, other, event))]
    assert len({tuple(parts) for parts in ids}) == 6
    assert [parts[2:] for parts in ids] == [["1", "0"], ["1", "1"], ["1", "0"], ["1", "1"], ["2", "0"], ["2", "1"]]
    assert ids[0][1] == ids[4][1] != ids[2][1]


def test_ids_depend_on_the_line_and_not_on_its_place(tmp_path, events):
    first = VISIT | {"eventType": "home-page-view"}
    second = first | {"eventTime": "2026-01-02T03:04:04Z"}
    there = {e["event_id"] for e in events("google-retail", file_of(tmp_path, first, second))}
    assert {e["event_id"] for e in events("google-retail", file_of(tmp_path, second, first))} == there


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"eventType":"search",', "malformed_json"),
        (b'{"eventType":"search","n":NaN}', "malformed_json"),
        (b"[1,2]", "not_an_object"),
        (b'{"visitorId":"\xff"}', "invalid_utf8"),
        (b"[" * 100_000, "event_too_large"),
        (b'{"visitorId":"v","eventTime":"2026-01-02T03:04:05Z"}', "missing_type"),
        (b'{"eventType":7,"visitorId":"v","eventTime":"2026-01-02T03:04:05Z"}', "wrong_type"),
        (b'{"eventType":["search"],"visitorId":"v","eventTime":"2026-01-02T03:04:05Z"}', "wrong_type"),
        (b'{"eventType":"search","visitorId":"v"}', "missing_event_ts"),
        (b'{"eventType":"search","visitorId":"v","eventTime":"2026-01-02T03:04:05"}', "unparseable_event_ts"),
        (b'{"eventType":"search","visitorId":"v","eventTime":1767323045}', "wrong_type"),
        (b'{"eventType":"search","eventTime":"2026-01-02T03:04:05Z"}', "missing_actor"),
        (b'{"eventType":"add-to-cart","visitorId":"v","eventTime":"2026-01-02T03:04:05Z"}', "missing_item"),
        (
            b'{"eventType":"add-to-cart","visitorId":"v","eventTime":"2026-01-02T03:04:05Z","productDetails":"a"}',
            "missing_item",
        ),
        (
            b'{"eventType":"add-to-cart","visitorId":"v","eventTime":"2026-01-02T03:04:05Z",'
            b'"productDetails":[{"product":{"id":7}}]}',
            "wrong_type",
        ),
        (
            b'{"eventType":"add-to-cart","visitorId":"v","eventTime":"2026-01-02T03:04:05Z",'
            b'"productDetails":[{"product":{"id":"a"},"quantity":"2"}]}',
            "wrong_type",
        ),
    ],
)
def test_line_that_is_no_event_is_passed_on_for_a_precise_reason(tmp_path, load, outcomes, line, reason):
    good = VISIT | {"eventType": "home-page-view"}
    assert sorted(outcomes(load("google-retail", file_of(tmp_path, line, good)))) == sorted([reason, "accepted"])


@pytest.mark.parametrize(
    "line",
    [
        b'{"eventType":"search","visitorId":"a","visitorId":"b","eventTime":"2026-01-02T03:04:05Z"}',
        b'{"eventType":"search","visitorId":"a","attributes":{"x":1,"x":2},"eventTime":"2026-01-02T03:04:05Z"}',
        b'{"eventType":"search","visitorId":"a","n":1e400,"eventTime":"2026-01-02T03:04:05Z"}',
        b'{"eventType":"search","visitorId":"\\ud800","eventTime":"2026-01-02T03:04:05Z"}',
    ],
)
def test_line_that_mapping_would_change_is_passed_on_as_it_is(tmp_path, load, outcomes, line):
    lines = load("google-retail", file_of(tmp_path, line))
    assert lines == [line]
    assert outcomes(lines) != ["accepted"]


def test_nothing_that_a_line_holds_is_lost(tmp_path, load):
    event = VISIT | {
        "eventType": "purchase-complete",
        "productDetails": [product("p1", quantity=21) | {"note": "n1"}, "n2"],
        "purchaseTransaction": {"id": "n3", "revenue": 41, "more": {"deep": "n4"}},
        "userInfo": "n5",
        "properties": {"own": "n6"},
    }
    text = b"".join(load("google-retail", file_of(tmp_path, event))).decode()
    assert [word for word in ["p1", "21", "n1", "n2", "n3", "41", "n4", "n5", "n6"] if word not in text] == []


def test_file_of_empty_lines_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no lines"):
        IMPORTERS["google-retail"].read(file_of(tmp_path, b"", b"\r", b""))
