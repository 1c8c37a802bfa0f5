"""Metarank's JSON API in this process. It has no client library: its documentation (`doc/api.md`) shows the requests.

Refusals follow `src/main/scala/ai/metarank/api` and `main/command/Serve.scala` of metarank/metarank: routes of http4s
whose decoding errors nobody handles, so that the server answers 500 without a body; other paths and methods are
`Not found`.
"""

import json
from datetime import UTC, datetime

import pytest

from recsys_data.ingestion.batch.snapshot import take_snapshot
from recsys_data.serving.outcomes import outcomes
from recsys_data_tests.serving.conftest import declare, items_of

NOW = datetime.now(UTC)
MILLIS = str(int(NOW.timestamp() * 1000))


def ranking(*items, **more):
    return {"id": "r1", "timestamp": MILLIS, "user": "u1", "items": [{"id": item} for item in items], **more}


def event(kind, **more):
    return {"event": kind, "id": "e1", "timestamp": MILLIS, **more}


def stored(shop, client):
    client.stop()
    shop.consume()
    return shop.rows()


def test_items_are_ranked_and_explained(shop, serve):
    declare(shop, name="home", exploration=0)
    client = serve(shop)
    native = client.post("/v1/rank", json={"user_id": "u1", "items": ["i20", "i1", "i4"]})
    answer = client.post("/rank/home", json=ranking("i20", "i1", "i4"))
    assert [one["item"] for one in answer["items"]] == items_of(native)
    assert set(answer) == {"took", "items"} and set(answer["items"][0]) == {"item", "score"}
    explained = client.post("/rank/home?explain=true", json=ranking("i20", "i1", id="r2"))["items"]
    assert {one["name"] for one in explained[0]["features"]} == {"position", "propensity", "reason"}


def test_recommendations_are_for_a_user_or_similar_to_items(shop, serve):
    declare(shop, name="item_page", candidates=["similar"], exploration=0)
    client = serve(shop)
    mine = client.post("/recommend/home", json={"count": 3, "user": "u1"})
    assert len(mine["items"]) == 3
    similar = client.post("/recommend/item-page", json={"count": 3, "items": ["i10"]})
    native = client.post("/v1/similar", json={"items": ["i10"], "scenario": "item_page", "n": 3})
    assert {one["item"] for one in similar["items"]} == set(items_of(native))


def test_an_interaction_joins_its_ranking_by_the_id_that_the_client_chose(shop, serve):
    client = serve(shop)
    answer = client.post("/rank/home", json=ranking("i20", "i1", "i4"))
    shown = [one["item"] for one in answer["items"]]
    # Clients also report what they showed.
    sent = [
        event("ranking", **ranking(*shown)),
        event("interaction", ranking="r1", user="u1", type="click", item=shown[0]),
    ]
    found = client.post("/feedback", json=sent)
    assert (found["accepted"], found["status"]) == (2, "ok")
    assert set(found) == {"accepted", "status", "tookMillis", "updated"}
    rows = stored(shop, client)
    assert sorted(row["type"] for row in rows) == ["click", *["impression"] * 3]
    assert all(row["propensity"] for row in rows if row["type"] == "impression")
    (found,) = outcomes(shop.open_lake())
    assert (found.answers, found.shown, found.clicked) == (1, 3, 1)


@pytest.mark.parametrize("form", ["list", "lines", "one"])
def test_feedback_comes_as_a_list_as_lines_or_alone(shop, serve, form):
    client = serve(shop)
    events = [event("interaction", type="purchase", item=f"i{n}", session="s1") | {"id": f"e{n}"} for n in range(3)]
    events[0]["fields"] = [{"name": "price", "value": 9.5}, {"name": "shipping", "value": "DHL"}]
    texts = [json.dumps(one) for one in events]
    bodies = {"list": f"[{','.join(texts)}]", "lines": "\n".join(texts), "one": json.dumps(events[0], indent=2)}
    assert client.post("/feedback", content=bodies[form])["accepted"] == (1 if form == "one" else 3)
    rows = {row["event_id"]: row for row in stored(shop, client)}
    first = rows["e0"]
    assert (first["type"], first["price"], first["anonymous_id"], first["source"]) == (
        "purchase",
        9.5,
        "s1",
        "metarank",
    )
    assert json.loads(first["properties"]) == {"shipping": "DHL"}
    assert abs((first["event_ts"] - NOW).total_seconds()) < 0.01


def test_what_is_known_of_items_and_users_becomes_the_state_of_the_day(shop, serve):
    client = serve(shop)
    title, colour = {"name": "title", "value": "Lamp"}, {"name": "colour", "value": ["red", "blue"]}
    client.post("/feedback", json=event("item", item="n1", fields=[title]))
    found = client.post("/feedback", json=[event("item", item="n1", fields=[colour]), event("user", user="p1")])
    assert found["updated"] == 2
    client.stop()
    take_snapshot(shop.open_lake(), shop.settings, "item_catalog", datetime.now(UTC).date(), accept=True)
    rows = shop.open_lake().table("item_catalog").scan().to_arrow().to_pylist()
    (row,) = [row for row in rows if row["item_id"] == "n1"]
    assert (row["title"], dict(row["attributes"])) == ("Lamp", {"colour": '["red","blue"]'})


BAD = {
    "not JSON": ("POST", "/rank/home", b"{", 500),
    "a ranking without an id": ("POST", "/rank/home", {"timestamp": MILLIS, "items": [{"id": "i1"}]}, 500),
    "a ranking without items": ("POST", "/rank/home", ranking(), 500),
    "an unreadable time": ("POST", "/rank/home", ranking("i1", timestamp="soon"), 500),
    "an unknown model": ("POST", "/rank/none", ranking("i1"), 500),
    "a count that is text": ("POST", "/recommend/home", {"count": "three"}, 500),
    "no count": ("POST", "/recommend/home", {"user": "u1"}, 500),
    "an unknown event": ("POST", "/feedback", event("dance"), 500),
    "an event without a kind": ("POST", "/feedback", {"id": "e1", "timestamp": MILLIS, "item": "i1"}, 500),
    "one bad event of two": ("POST", "/feedback", [event("interaction", type="click", item="i1"), event("item")], 500),
    "a wrong method": ("GET", "/rank/home", None, 404),
    "explain is neither true nor false": ("POST", "/rank/home?explain=maybe", ranking("i1"), 404),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_is_refused_as_the_service_does(empty, serve, bad):
    """Statuses and bodies are those of http4s without an error handler; see the docstring of this module."""
    method, path, body, status = BAD[bad]
    client = serve(empty)
    answer = client.request(method, path, content=body if isinstance(body, bytes) else json.dumps(body).encode())
    assert answer.status_code == status
    assert answer.content == (b"" if status == 500 else b"Not found")
    assert status == 404 or answer.headers["X-Error"]
    client.stop()
    empty.consume()
    assert empty.rows() == []


def test_a_ranking_that_was_made_elsewhere_becomes_impressions(shop, serve):
    client = serve(shop)
    client.post("/feedback", json=event("ranking", **ranking("i3", "i1")))
    rows = [(row["event_id"], row["item_id"], row["position"]) for row in stored(shop, client)]
    assert sorted(rows) == [("r1-1", "i3", 1), ("r1-2", "i1", 2)]


def test_keys_are_those_of_the_native_api(shop, serve):
    client = serve(shop, write_keys="right")
    assert client.request("POST", "/recommend/home", json={"count": 1}).status_code == 401
    assert client.request("POST", "/recommend/home", json={"count": 1}, auth=("right", "")).status_code == 200
