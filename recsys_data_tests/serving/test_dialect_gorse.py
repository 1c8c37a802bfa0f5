"""Gorse's REST API in this process; `test_dialect_clients` drives its published clients.

Paths, statuses and texts of refusals are those of `server/rest.go` of gorse-io/gorse: `BadRequest`, `PageNotFound` and
the filter for keys write the error as plain text through go-restful.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest

from recsys_data.serving.outcomes import outcomes
from recsys_data_tests.serving.conftest import declare, items_of

TIME = "2026-01-05T10:00:00Z"


def feedback(kind="like", user="u1", item="i1", time=TIME, **more):
    return {"FeedbackType": kind, "UserId": user, "ItemId": item, "Timestamp": time, **more}


def get(client, path, **headers):
    answer = client.request("GET", path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stored(shop, client):
    client.stop()
    shop.consume()
    return shop.rows()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_user_gets_ids_and_with_version_2_scores(shop, serve, slash):
    declare(shop, name="home", exploration=0)
    client = serve(shop)
    ids = get(client, f"/api/recommend/u1{slash}?n=3")
    scored = get(client, f"/api/recommend/u1{slash}?n=3", **{"X-API-Version": "2"})
    assert ids == [one["Id"] for one in scored] == items_of(client.recommend(user_id="u1", n=3))
    assert [set(one) for one in scored] == [{"Id", "Score"}] * 3
    assert get(client, "/api/recommend/u1?n=2&offset=1") == [*ids[1:], *ids[3:]]


def test_a_category_is_in_the_path_or_in_the_query(shop, serve):
    shop.list_items({f"i{n}": {"category_path": ["odd" if n % 2 else "even"]} for n in range(10)})
    client = serve(shop)
    for path in ("/api/recommend/stranger/odd", "/api/recommend/stranger?category=odd", "/api/recommend/stranger/odd/"):
        assert {int(item[1:]) % 2 for item in get(client, path)} == {1}
    for path in ("/api/popular/odd", "/api/latest/odd", "/api/item/i1/neighbors/odd"):
        assert {int(one["Id"][1:]) % 2 for one in get(client, path)} == {1}


def test_popular_and_latest_items_leave_out_what_a_user_met(shop, serve):
    dates = {f"i{n}": {"created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n)} for n in range(5)}
    shop.list_items(dates)
    shop.happen((0, "view", "u7", "i4"), (0, "view", "u7", "i0"))
    client = serve(shop)
    assert [one["Id"] for one in get(client, "/api/latest?n=2")] == ["i4", "i3"]
    assert [one["Id"] for one in get(client, "/api/latest?n=2&offset=1&user-id=u7")] == ["i2", "i1"]
    assert get(client, "/api/popular")[0]["Id"] == "i0"
    assert "i0" not in {one["Id"] for one in get(client, "/api/popular?user-id=u7")}


def test_neighbors_and_sessions_are_similar_items(shop, serve):
    declare(shop, name="item_page", candidates=["similar"], exploration=0)
    client = serve(shop)
    native = client.post("/v1/similar", json={"items": ["i10"], "scenario": "item_page", "n": 3})
    assert {one["Id"] for one in get(client, "/api/item/i10/neighbors?n=3")} == set(items_of(native))
    given = [feedback(item="i30", time="2026-01-05T10:00:00Z"), feedback(item="i10", time="2026-01-05T11:00:00Z")]
    found = client.post("/api/session/recommend?n=4", json=given)
    assert found and not {"i30", "i10"} & {one["Id"] for one in found}


def test_write_back_makes_impressions_at_their_time(shop, serve):
    client = serve(shop)
    ids = get(client, "/api/recommend/u1?n=3&write-back-type=read&write-back-delay=1h30m")
    rows = stored(shop, client)
    assert {(row["type"], row["item_id"]) for row in rows} == {("impression", item) for item in ids}
    assert {row["event_ts"] - row["received_at"] for row in rows} == {timedelta(minutes=90)}


def test_feedback_joins_the_answer_that_showed_the_item_last(shop, serve):
    declare(shop, name="home", exploration=0)
    client = serve(shop)
    get(client, "/api/recommend/u1?n=3")
    ids = get(client, "/api/recommend/u1?n=3")
    now = datetime.now(UTC).isoformat()
    sent = [feedback("click", item=ids[0], time=now), feedback("click", item="i39", time=now)]
    for method in ("POST", "PUT", "POST"):  # The same event, which is stored once.
        assert client.request(method, "/api/feedback", json=sent).json() == {"RowAffected": 2}
    rows = stored(shop, client)
    clicks = {row["item_id"]: row["recommendation_id"] for row in rows if row["type"] == "click"}
    assert len(clicks) == 2 and clicks[ids[0]] and clicks["i39"] is None
    (found,) = outcomes(shop.open_lake())
    assert (found.answers, found.shown, found.clicked) == (2, 6, 1)


def test_feedback_gets_native_types_and_is_read_back(shop, serve):
    client = serve(shop)
    sent = [
        feedback("star", comment="x", Comment="nice"),
        feedback("read", item="i2"),
        feedback("rate", item="i3", Value=7.5),
        feedback("dance", user="u2", item="i/4", time=""),
    ]
    assert client.post("/api/feedback", json=sent) == {"RowAffected": 4}
    rows = {row["event_name"]: row for row in stored(shop, client)}
    assert {name: row["type"] for name, row in rows.items()} == {
        "star": "like",
        "read": "view",
        "rate": "rating",
        "dance": "custom",
    }
    assert rows["rate"]["rating"] == 7.5
    assert json.loads(rows["star"]["properties"]) == {"comment": "nice"}
    client = serve(shop)
    star = {"FeedbackType": "star", "UserId": "u1", "ItemId": "i1", "Value": 0, "Timestamp": TIME, "Comment": "nice"}
    assert get(client, "/api/user/u1/feedback/star") == [star]
    assert [one["FeedbackType"] for one in get(client, "/api/user/u1/feedback/")] == ["rate", "read", "star"]
    assert get(client, "/api/feedback/star/u1/i1") == star
    assert [one["UserId"] for one in get(client, "/api/item/i%2F4/feedback")] == ["u2"]
    assert get(client, "/api/feedback/u1/i2")[0]["FeedbackType"] == "read"
    first = get(client, "/api/feedback?n=3")
    rest = get(client, f"/api/feedback?n=3&cursor={first['Cursor']}")
    assert (len(first["Feedback"]), len(rest["Feedback"]), rest["Cursor"]) == (3, 1, "")


def test_items_are_kept_changed_and_deleted(shop, serve):
    client = serve(shop)
    item = {
        "ItemId": "i1",
        "IsHidden": False,
        "Categories": ["a"],
        "Timestamp": "2022-08-07T00:26:46Z",
        "Labels": ["x", "y"],
        "Comment": "Lamp",
    }
    assert client.post("/api/item", json=item) == {"RowAffected": 1}
    assert client.post("/api/items", json=[item | {"ItemId": f"n{n}"} for n in range(3)]) == {"RowAffected": 3}
    assert get(client, "/api/item/i1") == item
    changed = client.request("PATCH", "/api/item/i1", json={"Comment": "Desk lamp", "IsHidden": None})
    assert changed.json() == {"RowAffected": 1}
    assert client.request("PUT", "/api/item/i1/category/b").json() == {"RowAffected": 1}
    assert client.request("DELETE", "/api/item/i1/category/a").json() == {"RowAffected": 1}
    assert get(client, "/api/item/i1") == item | {"Comment": "Desk lamp", "Categories": ["b"]}
    first = get(client, "/api/items?n=3")
    rest = get(client, f"/api/items?n=3&cursor={first['Cursor']}")
    assert [one["ItemId"] for one in first["Items"] + rest["Items"]] == ["i1", "n0", "n1", "n2"]
    assert client.request("DELETE", "/api/item/i1").json() == {"RowAffected": 1}
    gone = client.request("GET", "/api/item/i1")
    assert (gone.status_code, gone.text) == (404, "i1: item not found")


def test_a_hidden_or_deleted_item_is_not_shown_any_more_at_once(shop, serve):
    client = serve(shop)
    everything = set(items_of(client.recommend(n=40)))
    assert {"i3", "i4"} <= everything
    client.post("/api/item", json={"ItemId": "i3", "IsHidden": True})
    client.request("DELETE", "/api/item/i4")
    assert set(items_of(client.recommend(n=40))) == everything - {"i3", "i4"}
    client.post("/api/item", json={"ItemId": "i3"})
    assert set(items_of(client.recommend(n=40))) == everything - {"i4"}


def test_users_are_kept_changed_and_deleted(shop, serve):
    client = serve(shop)
    user = {"UserId": "p1", "Labels": ["a"], "Subscribe": None, "Comment": "c"}
    assert client.post("/api/users", json=[user, {"UserId": "p2"}]) == {"RowAffected": 2}
    assert get(client, "/api/user/p1") == user
    assert client.request("PATCH", "/api/user/p1", json={"Comment": "d"}).json() == {"RowAffected": 1}
    assert get(client, "/api/users")["Users"][0] == user | {"Comment": "d"}
    assert client.request("DELETE", "/api/user/p1").json() == {"RowAffected": 1}
    assert client.request("GET", "/api/user/p1").status_code == 404


def test_a_key_is_needed_where_there_are_some_but_for_health(shop, serve):
    client = serve(shop, write_keys="right")
    for headers in ({}, {"X-API-Key": "wrong"}):
        answer = client.request("GET", "/api/recommend/u1", headers=headers)
        assert (answer.status_code, answer.text) == (401, "unauthorized")
    assert client.request("GET", "/api/recommend/u1", headers={"X-API-Key": "right"}).status_code == 200
    assert get(client, "/api/health/ready")["Ready"] is True


BAD = {
    "n is not a number": ("GET", "/api/recommend/u1?n=x", None, 400, 'strconv.Atoi: parsing "x": invalid syntax'),
    "offset is not a number": ("GET", "/api/popular?offset=1.5", None, 400, 'parsing "1.5": invalid syntax'),
    "a delay that is none": (
        "GET",
        "/api/recommend/u1?write-back-type=read&write-back-delay=soon",
        None,
        400,
        'time: invalid duration "soon"',
    ),
    "not JSON": ("POST", "/api/feedback", b"[{", 400, ""),
    "an object for a list": ("POST", "/api/feedback", {"FeedbackType": "like"}, 400, ""),
    "a number for a name": ("POST", "/api/item", {"ItemId": 7}, 400, "ItemId"),
    "an unreadable time": ("POST", "/api/feedback", [feedback(time="x")], 400, 'Could not find format for "x"'),
    "labels of several kinds": ("POST", "/api/user", {"UserId": "u", "Labels": ["a", 1]}, 400, "unsupported labels"),
    "an unknown item": ("GET", "/api/item/none", None, 404, "none: item not found"),
    "an unknown user": ("GET", "/api/user/none", None, 404, "none: user not found"),
    "an unknown path": ("GET", "/api/nothing/here", None, 404, "404: Page Not Found"),
    "a wrong method": ("DELETE", "/api/popular", None, 405, "405: Method Not Allowed"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_is_refused_as_the_service_does(empty, serve, bad):
    """Statuses and texts are those of `server/rest.go` and of Go's libraries; see the docstring of this module."""
    method, path, body, status, says = BAD[bad]
    client = serve(empty)
    sent = {"content": body, "headers": {"Content-Type": "application/json"}} if isinstance(body, bytes) else {}
    answer = client.request(method, path, **(sent or ({} if body is None else {"json": body})))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert says in answer.text and answer.text
    client.stop()
    empty.consume()
    assert empty.rows() == []


def test_a_body_of_another_type_is_refused(empty, serve):
    answer = serve(empty).request("POST", "/api/feedback", content=b"[]", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert answer.text == "[ServiceError:400] Unable to unmarshal content of type:text/plain"


def test_what_cannot_be_done_says_so(empty, serve):
    client = serve(empty)
    for method, path in (("DELETE", "/api/feedback/u/i"), ("GET", "/api/user/u/neighbors"), ("GET", "/api/items?q=x")):
        answer = client.request(method, path)
        assert answer.status_code == 501 and answer.text.endswith(".")
