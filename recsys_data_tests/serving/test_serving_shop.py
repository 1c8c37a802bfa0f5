"""The demo shop and what it asks of the server, in this process."""

import base64
import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from recsys_data.errors import UserError
from recsys_data.features.parity import Parity
from recsys_data.serving.delays import SOON_SECONDS, Delay, EventDelays, stored_delays
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.shop.numbers import RecentParity
from recsys_data.serving.shop.routes import origin
from recsys_data_tests.serving.conftest import items_of

COLLECTOR = "http://127.0.0.1:8080"
HERE = {"Host": "127.0.0.1:8090"}
BASKET = {
    "price": Decimal("12.5"),
    "currency": "EUR",
    "brand": "b",
    "category_path": ["all", "some"],
    "attributes": {"cost": "3"},
}


@pytest.fixture
def page(shop, serve):
    return serve(shop, shop_url=COLLECTOR)


def test_items_have_what_a_shop_shows_and_nothing_else(empty, serve):
    empty.list_items({"a": BASKET, "b": {"available": False}})
    found = serve(empty).get("/v1/items?ids=b,a,nosuch,b").json()["items"]
    assert found == [
        {"item_id": "b", "title": "b", "available": False},
        {
            "item_id": "a",
            "title": "a",
            "brand": "b",
            "category_path": ["all", "some"],
            "price": 12.5,
            "currency": "EUR",
        },
    ]


def test_items_are_those_of_the_newest_catalogue(empty, serve, monkeypatch):
    monkeypatch.setattr("recsys_data.serving.items.LOOK_SECONDS", 0)
    empty.list_items({"a": {"price": 1, "currency": "EUR"}, "b": {}, "c": {}})
    client = serve(empty)
    assert client.get("/v1/items?ids=a").json()["items"][0]["price"] == 1
    empty.list_items({"a": {"price": 2, "currency": "EUR"}, "c": {}})
    assert client.get("/v1/items?ids=a,b").json()["items"] == [
        {"item_id": "a", "title": "a", "price": 2, "currency": "EUR"}
    ]


def test_without_a_catalogue_no_item_is_known(empty, serve):
    assert serve(empty).get("/v1/items?ids=a").json() == {"items": []}


@pytest.mark.parametrize(
    "query", ["", "?ids=", "?ids=,", "?ids=" + "a" * 257, "?ids=" + ",".join(map(str, range(101)))]
)
def test_a_list_of_items_that_makes_no_sense_is_refused(empty, serve, query):
    assert serve(empty).get("/v1/items" + query).status_code == 400


def test_there_is_no_shop_unless_it_is_asked_for(shop, serve):
    client = serve(shop)
    assert [client.get(path).status_code for path in ("/", "/shop/", "/shop/numbers")] == [404] * 3


def test_the_page_loads_from_its_server_and_sends_to_the_collector_only(page):
    answer = page.request("GET", "/shop/", headers=HERE)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html") and "default-src 'none'" in policy
    assert f"connect-src 'self' {COLLECTOR};" in policy and "unsafe" not in policy
    # What a strict policy would break, and what would come from elsewhere.
    assert not re.search(r"https?://|\sstyle=|\son[a-z]+=|<script>|<style", answer.text)
    for name, kind in (("shop.css", "text/css"), ("shop.js", "text/javascript")):
        assert name in answer.text
        assert page.request("GET", f"/shop/{name}", headers=HERE).headers["content-type"].startswith(kind)
    assert page.request("GET", "/", headers=HERE).headers["location"] == "/shop/"


def test_without_keys_the_shop_is_not_served_under_a_name_that_was_rebound(page):
    for path in ("/shop/", "/shop/numbers", "/shop/shoppers", "/shop/settings"):
        assert page.request("GET", path, headers={"Host": "evil.example:8090"}).status_code == 403
        assert page.request("GET", path, headers={"Host": "localhost:8090"}).status_code == 200


def test_with_keys_the_page_gets_none_and_asks_for_one(shop, serve):
    client = serve(shop, shop_url=COLLECTOR, write_keys="secret-key")
    assert client.get("/shop/settings").json() == {"collector": COLLECTOR, "needs_key": True}
    for path in ("/shop/", "/shop/shop.js", "/shop/settings"):
        assert "secret-key" not in client.get(path).text
    headers = {"Authorization": "Basic " + base64.b64encode(b"secret-key:").decode()}
    for path in ("/shop/numbers", "/shop/shoppers", "/v1/items?ids=i1"):
        assert client.get(path).status_code == 401
        assert client.request("GET", path, headers=headers).status_code == 200
    assert client.request("POST", "/shop/visitor", json={}).status_code == 401


def test_shoppers_are_users_who_did_something(shop, page, monkeypatch):
    monkeypatch.setattr("recsys_data.serving.shop.shoppers.SOON_SECONDS", 0)
    assert page.request("GET", "/shop/shoppers", headers=HERE).json() == {"shoppers": []}
    shop.happen((1, "view", "u1", "i1", {}), (2, "view", "u1", "i2", {}), (3, "view", "u2", "i1", {}))
    shop.happen((4, "view", None, "i3", {"anonymous_id": "a"}))
    found = page.request("GET", "/shop/shoppers", headers=HERE).json()["shoppers"]
    assert found == [{"user_id": "u1", "items": 2}, {"user_id": "u2", "items": 1}]


def test_a_page_sees_what_answers_know_of_a_visitor_without_showing_anything(shop, page):
    shop.happen((1, "view", None, "i20", {"anonymous_id": "new"}))
    page.refresh()
    sent = {"headers": HERE, "json": {"anonymous_id": "new"}}
    assert page.request("POST", "/shop/visitor", **sent).json() == {"items": ["i20"]}
    assert page.request("POST", "/shop/visitor", headers=HERE, json={"n": 3}).status_code == 400
    page.stop()
    shop.consume()
    assert [row["type"] for row in shop.rows()] == ["view"]


def test_numbers_say_how_fresh_answers_are_and_what_came_of_them(shop, page, serve):
    before = page.request("GET", "/shop/numbers", headers=HERE).json()
    assert (before["events"], before["outcomes"], before["parity"], before["stored"]["p50_s"]) == (0, [], None, None)
    assert before["serving"]["models"][0]["served"] == "next_items/1"
    answer = page.recommend(user_id="u3", n=2)
    page.stop()
    shop.consume()
    client = serve(shop, shop_url=COLLECTOR)
    after = client.request("GET", "/shop/numbers", headers=HERE).json()
    assert (after["events"], after["waiting"]) == (2, 0)
    assert [(one["model"], one["scenario"], one["shown"]) for one in after["outcomes"]] == [
        (answer["model"], "home", 2)
    ]


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://a b", "http://x;script-src *", "http://u@x"])
def test_what_is_not_the_url_of_a_collector_is_refused(url):
    with pytest.raises(UserError, match="URL of a collector"):
        origin(url)


def test_an_event_is_counted_at_the_first_answer_that_uses_it(shop, serve):
    shop.happen((1, "view", "u1", "i1", {}))
    client = serve(shop)
    received = (datetime.now(UTC) - timedelta(seconds=2)).isoformat().replace("+00:00", "Z")
    shop.happen((1, "view", None, "i20", {"anonymous_id": "new", "received_at": received}))
    client.refresh()
    client.recommend(user_id="u1")
    assert client.counted("serving_event_online_seconds_count") == 1
    assert client.counted("serving_event_used_seconds_count") == 0
    answer = client.recommend(anonymous_id="new", n=2)
    client.recommend(anonymous_id="new", n=2)
    assert client.counted("serving_event_used_seconds_count") == 1
    client.stop()
    shop.consume()
    delays = {
        (row["recommendation_id"], row["position"]): msgspec.json.decode(row["properties"]).get("event_delay_s")
        for row in shop.rows()
        if row["type"] == "impression"
    }
    (found,) = [key for key, value in delays.items() if value is not None]
    assert found == (answer["recommendation_id"], 1) and delays[found] >= 2


def test_a_visitor_who_comes_back_late_says_nothing_about_how_fast_it_went(monkeypatch):
    delays = EventDelays(ServingMetrics())
    delays.arrived([(("device/a",), time.time() - 1), (("device/b",), None)])
    moment = time.time() + SOON_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: moment)
    assert delays.used(["device/a"]) is None and delays.used(["device/b"]) is None
    assert (delays.online().events, delays.first_answers().events) == (1, 0)


def test_the_shelf_of_the_page_holds_items_that_it_can_describe(shop, page):
    shown = items_of(page.recommend(user_id="u3", n=12))
    described = page.get("/v1/items?ids=" + ",".join(shown)).json()["items"]
    assert [one["item_id"] for one in described] == shown


def test_the_status_knows_how_long_events_took_to_an_answer(shop, serve):
    shop.happen((1, "view", "u1", "i1", {}))
    assert stored_delays(shop.open_lake()) == Delay(0, None, None)
    client = serve(shop)
    for seconds, visitor in ((2, "a"), (4, "b"), (1, "c")):
        received = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
        shop.happen((1, "view", None, "i20", {"anonymous_id": visitor, "received_at": received}))
        client.refresh()
        client.recommend(anonymous_id=visitor, n=3)
    client.stop()
    shop.consume()
    found = stored_delays(shop.open_lake())
    assert found.events == 3 and found.p50_s and found.p95_s and 1 <= found.p50_s <= found.p95_s and found.p95_s >= 4
    assert stored_delays(shop.open_lake(), datetime.now(UTC) + timedelta(hours=2)).events == 0


def test_parity_is_compared_in_the_background_once_a_minute(shop, monkeypatch):
    shop.happen((1, "view", "u1", "i1", {}))
    compared = []

    def parity(lake, since, most):
        compared.append(since)
        return Parity(1, 40, 0, 1, [])

    monkeypatch.setattr("recsys_data.serving.shop.numbers.parity", parity)
    number = RecentParity(shop.open_lake())
    deadline = time.monotonic() + 10
    while not number.read():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (number.read(), len(compared)) == ({"values": 40, "differences": 1}, 1)
