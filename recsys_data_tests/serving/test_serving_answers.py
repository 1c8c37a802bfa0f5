"""What is answered over HTTP, in this process."""

import base64
import time
from datetime import timedelta

import msgspec
import pytest

from recsys_data.errors import Transient
from recsys_data.features import embeddings
from recsys_data.serving import models
from recsys_data.serving.models import ServedModel
from recsys_data.training.registry import CHALLENGER
from recsys_data_tests.serving.conftest import declare, items_of
from recsys_data_tests.support.serving import ITEMS


def test_a_known_user_gets_items_of_the_champion_with_reasons(shop, serve):
    answer = serve(shop).recommend(user_id="u3", n=5)
    assert (answer["model"], answer["fallback"], answer["scenario"]) == ("next_items/1", False, "home")
    assert [one["position"] for one in answer["items"]] == [1, 2, 3, 4, 5]
    assert {one["reason"] for one in answer["items"]} <= {"model", "popular"}
    # What training rows have is seen.
    assert not {"i6", "i7", "i8", "i9", "i10", "i0"} & set(items_of(answer))


def test_a_click_changes_the_answer_of_a_visitor_whom_no_model_knows(shop, serve):
    client = serve(shop)
    before = client.recommend(anonymous_id="new", session_id="s1", n=4)
    assert before["fallback"] and {one["reason"] for one in before["items"]} == {"popular"}
    shop.happen((1, "view", None, "i20", {"anonymous_id": "new", "session_id": "s1"}))
    client.refresh()
    after = client.recommend(anonymous_id="new", session_id="s1", n=4)
    assert not after["fallback"] and after["items"][0]["reason"] == "session"
    assert "i20" not in items_of(after)


@pytest.mark.parametrize("scenario", ["home", "item_page", "cart"])
def test_without_a_model_available_items_are_answered_as_a_fallback(empty, serve, scenario, monkeypatch):
    # Without a model of texts nothing is known of these items.
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    empty.list_items(["a", "b", "c"])
    answer = serve(empty).recommend(user_id="u1", scenario=scenario, items=["c"], n=5)
    assert (answer["fallback"], answer["model"], sorted(items_of(answer))) == (True, "available", ["a", "b"])


def test_there_is_an_answer_when_there_is_nothing(empty, serve):
    client = serve(empty)
    assert client.recommend() | {"recommendation_id": ""} == {
        "recommendation_id": "",
        "model": "available",
        "variant": None,
        "scenario": "home",
        "fallback": True,
        "items": [],
    }
    assert client.get("/health").json()["catalogue"]["shows"] == "every item that a model knows"


def test_without_a_catalogue_every_item_of_the_model_may_be_shown(empty, serve):
    empty.register()
    client = serve(empty)
    assert len(client.recommend(n=500)["items"]) == ITEMS
    assert client.get("/health").json()["catalogue"]["dataset"] is None


def test_a_slow_model_is_not_waited_for(shop, serve, monkeypatch):
    declare(shop, name="hurry", budget_ms=20, candidates=["model"])
    client = serve(shop)
    recommend = ServedModel.recommend

    def slowly(*arguments):
        time.sleep(0.3)
        return recommend(*arguments)

    monkeypatch.setattr(ServedModel, "recommend", slowly)
    begun = time.monotonic()
    answer = client.recommend(user_id="u3", scenario="hurry", n=4)
    assert time.monotonic() - begun < 0.25
    assert answer["fallback"] and answer["model"] == "popular" and len(answer["items"]) == 4
    time.sleep(0.4)
    # What it said meanwhile is not lost.
    assert client.recommend(user_id="u3", scenario="hurry", n=4)["model"] == "next_items/1"
    assert client.counted("serving_models_unanswered_total") == 1


def test_a_model_that_fails_is_done_without(shop, serve, monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    client = serve(shop)
    monkeypatch.setattr(ServedModel, "recommend", fail)
    answer = client.recommend(user_id="u3", n=4)
    assert answer["fallback"] and len(answer["items"]) == 4


def test_an_unreadable_store_of_visitors_is_done_without(shop, serve, monkeypatch):
    client = serve(shop)

    def fail(*_):
        raise Transient("away")

    monkeypatch.setattr(type(client.serving.recommender.visitors), "recent_items", fail)
    assert client.recommend(user_id="u3", n=4)["model"] == "next_items/1"


def test_a_moved_alias_is_served_without_a_restart(shop, serve):
    client = serve(shop)
    shop.register("popular")
    client.refresh()
    assert client.recommend(user_id="u3")["model"] == "next_items/2"


def test_a_version_whose_files_are_gone_leaves_the_one_before_in_place(shop, serve):
    client = serve(shop)
    version = shop.register("popular")
    for file in (shop.settings.training_parts[1] / version.artefact).iterdir():
        file.unlink()
    client.refresh()
    assert client.recommend(user_id="u3")["model"] == "next_items/1"
    (about,) = client.get("/health").json()["models"]
    assert about["served"] == "next_items/1" and "Restore them" in about["failure"]
    assert client.get("/health").json()["status"] == "degraded"


def test_a_model_that_only_orders_items_is_refused_and_the_others_are_served(shop, serve, monkeypatch):
    declare(shop, name="shelf", model="aaa")
    load, real = models.load, shop.register()

    def loads(lake, settings, model, version):
        return (object(), real) if model == "aaa" else load(lake, settings, model, version)

    monkeypatch.setattr(models, "load", loads)
    monkeypatch.setattr(models, "aliases_of", lambda lake: {one: {"champion": 2} for one in ("aaa", "next_items")})
    client = serve(shop)
    assert client.recommend(user_id="u3")["model"] == "next_items/2"
    assert client.recommend(user_id="u3", scenario="shelf")["fallback"]
    assert "expected a model that recommends" in client.get("/health").json()["models"][0]["failure"]


def test_deleted_and_unavailable_items_are_never_answered_while_the_catalogue_churns(shop, serve):
    client = serve(shop)
    everything = [f"i{n}" for n in range(ITEMS)]
    for day in range(6):
        gone = {item for n, item in enumerate(everything) if n % 6 == day}
        away = {item for n, item in enumerate(everything) if n % 6 == (day + 3) % 6}
        shop.list_items({one: {"available": one not in away} for one in everything if one not in gone})
        client.refresh()
        for user in range(20):
            for path, body in (
                ("/v1/recommend", {}),
                ("/v1/recommend", {"scenario": "cart", "items": ["i3"]}),
                ("/v1/rank", {"items": everything}),
                ("/v1/similar", {"items": ["i5"]}),
            ):
                answer = client.post(path, json={"user_id": f"u{user}", "n": 30, **body})
                assert not (gone | away) & set(items_of(answer))
                assert answer["items"]


def test_nothing_is_shown_before_the_catalogue_was_read(shop, serve, monkeypatch):
    from recsys_data.serving import catalogue

    def fail(*_):
        raise Transient("the catalog is busy")

    monkeypatch.setattr(catalogue.CatalogueReader, "_read", fail)
    with pytest.raises(AssertionError):
        serve(shop)
    reader = catalogue.CatalogueReader(shop.open_lake())
    with pytest.raises(Transient):
        reader.refresh()
    assert not reader.current.shows("i1")


def test_exclude_category_and_seen_are_left_out(shop, serve):
    shop.list_items({f"i{n}": {"category_path": ["shoes", "boots" if n % 2 else "flats"]} for n in range(ITEMS)})
    client = serve(shop)
    answer = client.recommend(user_id="u3", n=30, context={"category": "boots"}, exclude=["i11", "i13"])
    numbers = [int(item[1:]) for item in items_of(answer)]
    assert numbers and all(n % 2 for n in numbers) and not {11, 13} & set(numbers)
    shop.happen(*((1, "view", "u3", item) for item in items_of(answer)))
    client.refresh()
    again = client.recommend(user_id="u3", n=30, context={"category": "boots"})
    assert not set(items_of(answer)) & set(items_of(again))


def test_rank_orders_all_items_that_may_be_shown(shop, serve):
    client = serve(shop)
    answer = client.post("/v1/rank", json={"user_id": "u3", "items": ["i30", "nothing", "i11", "i12", "i11"]})
    assert sorted(items_of(answer)) == ["i11", "i12", "i30"]
    assert items_of(answer)[-1] == "i30" and answer["model"] == "next_items/1"
    unknown = client.post("/v1/rank", json={"items": ["i30", "i0"]})
    assert (items_of(unknown), unknown["fallback"]) == (["i0", "i30"], True)


def test_similar_items_are_those_of_the_given_one(shop, serve):
    answer = serve(shop).post("/v1/similar", json={"items": ["i20"], "n": 3})
    assert {one["reason"] for one in answer["items"]} == {"similar"}
    assert not {"i20"} & set(items_of(answer))


def test_pages_go_on_where_the_one_before_ended_and_log_what_they_show(shop, serve):
    declare(shop, name="home", exploration=0, n=3)
    client = serve(shop)
    whole = client.recommend(user_id="u1", n=6)
    pages = [client.recommend(user_id="u1", offset=offset, recommendation_id=f"page-{offset}") for offset in (0, 3)]
    assert [items_of(page) for page in pages] == [items_of(whole)[:3], items_of(whole)[3:]]
    assert [one["position"] for one in pages[1]["items"]] == [4, 5, 6]
    client.stop()
    shop.consume()
    stored = {row["event_id"]: row["item_id"] for row in shop.rows() if row["recommendation_id"] == "page-3"}
    assert stored == {f"page-3-{place}": item for place, item in zip((4, 5, 6), items_of(pages[1]), strict=True)}


def test_what_is_fetched_ahead_is_shown_later(shop, serve):
    client = serve(shop)
    client.recommend(user_id="u1", n=1, shown_after_seconds=3600)
    client.stop()
    shop.consume()
    (row,) = shop.rows()
    assert row["event_ts"] - row["received_at"] == timedelta(hours=1)


def test_a_request_that_is_tried_again_with_its_id_makes_no_second_impressions(shop, serve):
    client = serve(shop)
    answers = [client.recommend(user_id="u1", n=3, recommendation_id="mine") for _ in range(2)]
    assert answers[0] == answers[1] and answers[0]["recommendation_id"] == "mine"
    client.stop()
    shop.consume()
    assert len(shop.rows()) == 3


def test_variants_are_sticky_and_use_their_own_model(shop, serve):
    shop.register("popular", CHALLENGER)
    variants = {"control": 0.5, "challenger": {"share": 0.5, "alias": "challenger"}}
    declare(shop, name="home", variants=variants, n=4)
    client = serve(shop)
    found = {}
    for n in range(200):
        answers = [client.recommend(user_id=f"u{n}") for _ in range(2)]
        assert len({one["variant"] for one in answers}) == 1
        found[n] = answers[0]["variant"]
        if answers[0]["model"] != "popular":
            assert answers[0]["model"] == {"control": "next_items/1", "challenger": "next_items/2"}[found[n]]
    assert 70 < sum(one == "control" for one in found.values()) < 130


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"user_id": 5}', "Expected `str | null`, got `int` - at `$.user_id`"),
        (b'{"userid": "u"}', "unknown field `userid`"),
        (b'{"n": 0}', "Expected `int` >= 1 - at `$.n`"),
        (b'{"n": 501}', "Expected `int` <= 500 - at `$.n`"),
        (b'{"exclude": ["a", ""]}', "Expected `str` of length >= 1 - at `$.exclude[1]`"),
        (b'{"scenario": "nowhere"}', "scenario is 'nowhere'; expected one of cart, home, item_page"),
        (b'{"context": {"category": 5}}', "context.category is 5; expected text"),
        (b'{"user_id": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(empty, serve, body, says):
    assert says in serve(empty).post("/v1/recommend", code=400, content=body)["error"]


def test_rank_and_similar_need_items(empty, serve):
    client = serve(empty)
    for path in ("/v1/rank", "/v1/similar"):
        assert client.post(path, code=400, json={})["error"].startswith("items is empty")


def test_keys_are_checked_where_there_are_some(shop, serve):
    client = serve(shop, write_keys="one,two")
    assert "no write key" in client.post("/v1/recommend", code=401, json={})["error"]
    header = {"Authorization": "Basic " + base64.b64encode(b"wrong:").decode()}
    assert "a wrong write key" in client.post("/v1/recommend", code=401, json={}, headers=header)["error"]
    header = {"Authorization": "Basic " + base64.b64encode(b"two:").decode()}
    assert client.post("/v1/recommend", json={}, headers=header)["items"]


def test_a_body_that_is_too_large_is_refused(empty, serve):
    client = serve(empty, max_request_bytes=1000)
    assert "more than 1000 bytes" in client.post("/v1/recommend", code=413, content=b" " * 1001)["error"]


def test_the_description_of_the_api_lists_its_paths(empty, serve):
    client = serve(empty)
    found = client.get("/openapi.json").json()
    assert {"/v1/recommend", "/v1/rank", "/v1/similar", "/v1/items", "/health", "/metrics"} == set(found["paths"])
    request = found["components"]["schemas"]["Request"]["properties"]
    assert set(request) == {"user_id", "anonymous_id", "session_id", "n", "context", "scenario", "exclude", "items"} | {
        "offset",
        "shown_after_seconds",
        "recommendation_id",
    }
    assert msgspec.json.encode(found)
    assert client.request("GET", "/v1/recommend").status_code == 405
    assert client.request("GET", "/nowhere").status_code == 404
