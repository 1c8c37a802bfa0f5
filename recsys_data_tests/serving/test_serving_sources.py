"""Candidates of new items by content and of segments, and rules over the catalogue."""

import json

import numpy as np
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.errors import ContractError, UserError
from recsys_data.features import embeddings
from recsys_data.serving.content import LEAST_COSINE, Content, ContentReader, attributes
from recsys_data.serving.scenarios.declared import load_scenarios, parse_scenario
from recsys_data.serving.segments import Segments
from recsys_data_tests.serving.conftest import declare, items_of
from recsys_data_tests.support.serving import ITEMS

RED, BLUE = {"category_path": ["toys", "red"], "brand": "a"}, {"category_path": ["toys", "blue"], "brand": "b"}


@pytest.fixture
def without_embeddings(monkeypatch):
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)


def catalogue(**more):
    """Those that the model knows are blue; `i3` is red."""
    return {f"i{n}": BLUE for n in range(ITEMS)} | {"i3": RED} | more


def test_new_items_come_with_what_they_are_like(shop, serve, without_embeddings):
    shop.list_items(catalogue(new1=RED, new2=RED | {"brand": "c"}, other={"category_path": ["books"]}))
    declare(shop, name="item_page", n=4, candidates=["content"])
    declare(shop, name="home", n=30, candidates=["model", "content"], filters=["seen"])
    client = serve(shop)
    page = client.recommend(scenario="item_page", items=["i3"])
    assert items_of(page)[:2] == ["new1", "new2"] and "other" not in items_of(page)[:2]
    assert [one["reason"] for one in page["items"]] == ["content", "content", "popular", "popular"]
    assert (page["model"], page["fallback"]) == ("content", False)
    # Of a visitor's last items, beside what the model says.
    shop.happen((1, "view", "u3", "i3"))
    client.refresh()
    home = {one["item_id"]: one["reason"] for one in client.recommend(user_id="u3")["items"]}
    assert home["new1"] == "content" and "model" in home.values()


def test_a_new_item_brings_all_that_are_like_it(shop, serve, without_embeddings):
    shop.list_items(catalogue(new1=RED))
    declare(shop, name="item_page", n=3, candidates=["similar", "content"])
    client = serve(shop)
    assert items_of(client.recommend(scenario="item_page", items=["new1"]))[0] == "i3"
    assert client.post("/v1/similar", json={"items": ["new1"], "scenario": "item_page"})["items"][0]["item_id"] == "i3"


def test_without_a_model_content_is_answered(empty, serve, without_embeddings):
    empty.list_items({"a": RED, "b": RED, "c": BLUE})
    declare(empty, name="item_page", n=3, candidates=["similar", "content"])
    answer = serve(empty).recommend(scenario="item_page", items=["a"])
    # c shares no more than the widest category.
    assert items_of(answer) == ["b", "c"] and [one["reason"] for one in answer["items"]] == ["content", "available"]


def test_texts_are_embedded_once(empty, monkeypatch):
    asked = []

    def embed(model, texts):
        asked.extend(texts)
        return np.array([[1.0, 0.0] if "red" in text else [0.6, 0.8] for text in texts], np.float32)

    monkeypatch.setattr(embeddings, "find_spec", lambda name: object())
    monkeypatch.setattr("recsys_data.serving.content.embed", embed)
    empty.list_items({"a": {"title": "red", "description": "ball"}, "b": {"title": "blue"}})
    reader = ContentReader(empty.open_lake())
    reader.refresh()
    reader.refresh()
    assert sorted(asked) == ["blue", "red. ball"]
    empty.list_items({"a": {"title": "red", "description": "ball"}, "b": {"title": "blue"}, "c": {"title": "red"}})
    reader.refresh()
    assert sorted(asked) == ["blue", "red", "red. ball"]
    reader.current.similar("m/1", {"a": 0, "b": 1}, ["a"])
    assert reader.current.remembered("m/1", ["a"]) == [(("c", 1.0),)]


def test_vectors_of_attributes_have_length_1_and_rare_ones_count_more():
    rows = [
        ("a", None, ["x", "y"], "m"),
        ("b", None, ["x", "y"], "n"),
        ("c", None, ["x"], "m"),
        ("d", None, None, None),
    ]
    vectors = attributes(rows)
    cosine = (vectors @ vectors.T).toarray()
    assert np.diag(cosine) == pytest.approx([1, 1, 1, 0])
    # Brand m is as rare as the categories x and y, which are two; all but one item are in x.
    assert cosine[0, 1] > cosine[2, 1] > 0 and cosine[0, 3] == 0
    content = Content(["a", "b", "c", "d"], vectors)
    content.similar("m", {"a": 0}, ["a", "b"])
    first, second = content.remembered("m", ["a", "b"]) or ((), ())
    assert dict(first) == pytest.approx({"b": cosine[0, 1], "c": cosine[0, 2]})
    # The model knows a, which brings new ones; b is new and brings all that are alike enough.
    assert [item for item, _ in second] == ["a"] and 0 < cosine[1, 2] < LEAST_COSINE
    assert attributes([]).shape[0] == 0


def test_what_is_popular_in_a_segment_comes_for_its_visitors(shop, serve):
    context = {"context": {"device": {"type": "mobile"}}}
    shop.happen(
        *((n / 100, "view", f"m{n}", "i31", context) for n in range(3)),
        *((n / 100, "view", f"d{n}", "i32", {"context": {"device": {"type": "desktop"}}}) for n in range(5)),
        (1, "view", "m1", "i33", context),
    )
    declare(shop, name="home", n=2, candidates=["popular_by_segment"], segment="device_type")
    client = serve(shop)
    mobile = client.recommend(context={"device_type": "mobile"})
    assert items_of(mobile) == ["i31", "i33"] and mobile["model"] == "popular_by_segment"
    assert not mobile["fallback"]
    assert client.recommend(context={"device_type": "desktop"})["items"][0]["item_id"] == "i32"
    for other in ({"device_type": "watch"}, {}):
        assert {one["reason"] for one in client.recommend(context=other)["items"]} == {"popular"}


def test_segments_without_events_are_empty(empty):
    segments = Segments(empty.open_lake(), {"device_type", "country"})
    segments.refresh()
    assert segments.popular("device_type", "mobile") == segments.popular("country", None) == ()


def test_rules_leave_out_items_for_which_they_are_false(shop, serve):
    listed = {f"i{n}": {"price": n, "currency": "EUR", "brand": "x" if n % 2 else "y"} for n in range(ITEMS)}
    shop.list_items(listed | {"i4": {}})
    rules = {"cheap": "price <= 10", "brands": "brand NOT IN ('x')", "fails": "1 / CAST(title AS INTEGER) > 0"}
    declare(shop, name="home", n=40, candidates=["popular"], rules=rules)
    declare(shop, name="cart", n=40, candidates=["popular"])
    client = serve(shop)
    # Of i4 nothing is known.
    assert set(items_of(client.recommend())) == {"i0", "i2", "i4", "i6", "i8", "i10"}
    assert set(items_of(client.post("/v1/rank", json={"items": ["i1", "i2", "i30"]}))) == {"i2"}
    assert len(items_of(client.recommend(scenario="cart"))) == ITEMS
    shop.list_items({"i2": {"price": 99, "currency": "EUR"}, "i6": {"price": 1, "currency": "EUR"}})
    client.refresh()
    assert items_of(client.recommend()) == ["i6"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"rules": {"cheap": "prise <= 10"}}, r"rules: cheap: `prise <= 10` cannot be evaluated"),
        ({"rules": {"cheap": "price"}}, r"rules: cheap: `price` is .*; expected true or false"),
        ({"rules": {"leak": "(SELECT count(*) FROM read_csv('x')) > 0"}}, "rules: leak: .* is refused"),
        ({"rules": ["price <= 10"]}, r"Expected `object`, got `array` - at `\$.rules`"),
        ({"candidates": ["popular_by_segment"]}, "segment is missing"),
        (
            {"variants": {"a": {"share": 1.0, "candidates": ["popular_by_segment"]}}},
            "segment is missing; popular_by_segment needs a column",
        ),
        ({"segment": "colour"}, "segment: 'colour' is no column of contexts or user_profiles"),
        ({"segment": "coordinates"}, "segment: "),
        ({"exploration": {"temperature": 0}}, r"`float` >= 0.05 - at `\$.exploration.temperature`"),
        ({"exploration": {"temprature": 1}}, "temprature"),
    ],
)
def test_what_does_not_fit_the_contracts_is_refused_with_file_and_field(tmp_path, document, says):
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "shelf.yaml").write_text(json.dumps({"name": "shelf", **document}))
    with pytest.raises((ContractError, UserError), match=says) as error:
        load_scenarios(tmp_path, contracts=load_contracts())
    assert str(error.value).startswith(str(folder / "shelf.yaml"))


def test_a_scenario_says_all_of_it(tmp_path):
    found = parse_scenario(
        tmp_path / "a.yaml",
        {"name": "a", "candidates": ["content", "popular_by_segment"], "segment": "country", "rules": {"r": "true"}},
    )
    assert (found.candidates, found.segment, found.rules) == (
        ("content", "popular_by_segment"),
        "country",
        {"r": "true"},
    )
