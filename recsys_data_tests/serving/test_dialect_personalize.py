"""Amazon Personalize's APIs, as its SDKs call them, in this process; `test_dialect_clients` drives the SDK itself.

What is refused, and how, follows the service models in botocore (`personalize-runtime/2018-05-22`,
`personalize-events/2018-03-22`: required members, patterns, lengths, exceptions and their statuses) and AWS's REST-JSON
protocol: the name in `x-amzn-ErrorType`, the message in the body.
"""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from recsys_data import contracts
from recsys_data.ingestion.batch.snapshot import take_snapshot
from recsys_data.serving.outcomes import outcomes
from recsys_data_tests.serving.conftest import declare

ARN = "arn:aws:personalize:eu-west-1:123456789012:"
HOME, PAGE = f"{ARN}campaign/home", f"{ARN}recommender/item-page"
SENT_AT = 1767600000


def asked(**more):
    return {"campaignArn": HOME, "userId": "u1", **more}


def put(*events, **more):
    given = [{"eventType": "Click", "sentAt": SENT_AT, **event} for event in events]
    return {"trackingId": "t1", "sessionId": "s1", "eventList": given, **more}


def stored(shop, client):
    client.stop()
    shop.consume()
    return shop.rows()


def test_a_user_gets_items_with_the_id_of_the_answer(shop, serve):
    client = serve(shop)
    answer = client.post("/recommendations", json=asked(numResults=4))
    assert len(answer["itemList"]) == 4 and set(answer) == {"itemList", "recommendationId"}
    assert [set(one) - {"reason"} for one in answer["itemList"]] == [{"itemId", "score"}] * 4
    rows = stored(shop, client)
    shown = sorted((row["position"], row["item_id"]) for row in rows)
    assert [item for _, item in shown] == [one["itemId"] for one in answer["itemList"]]
    assert {row["recommendation_id"] for row in rows} == {answer["recommendationId"]}


def test_an_item_alone_gets_similar_ones_and_unknown_users_get_popular_ones(shop, serve):
    declare(shop, name="item_page", candidates=["similar"], exploration=0)
    client = serve(shop)
    similar = client.post("/recommendations", json={"recommenderArn": PAGE, "itemId": "i10", "numResults": 3})
    native = client.post("/v1/similar", json={"items": ["i10"], "scenario": "item_page", "n": 3})
    assert {one["itemId"] for one in similar["itemList"]} == {one["item_id"] for one in native["items"]}
    popular = client.post("/recommendations", json=asked(userId="stranger"))
    assert len(popular["itemList"]) == 25
    assert popular["itemList"][0]["reason"] == ["Popular item"]


def test_a_ranking_orders_what_may_be_shown(shop, serve):
    shop.list_items([f"i{n}" for n in range(5)])
    client = serve(shop)
    answer = client.post("/personalize-ranking", json=asked(inputList=["i4", "i39", "i0", "i2"]))
    assert {one["itemId"] for one in answer["personalizedRanking"]} == {"i0", "i2", "i4"}
    assert answer["recommendationId"]


def test_a_filter_keeps_to_a_category(shop, serve):
    shop.list_items({f"i{n}": {"category_path": ["odd" if n % 2 else "even"]} for n in range(10)})
    client = serve(shop)
    filtered = {"filterArn": f"{ARN}filter/category", "filterValues": {"CATEGORY": '"odd"'}}
    found = client.post("/recommendations", json=asked(userId="stranger", **filtered))["itemList"]
    assert {int(one["itemId"][1:]) % 2 for one in found} == {1}
    # A context never filters.
    assert len(client.post("/recommendations", json=asked(context={"category": "odd"}))["itemList"]) > 5


def test_clicks_and_purchases_join_the_answer_by_its_id(shop, serve):
    declare(shop, name="home", exploration=0)
    client = serve(shop)
    answer = client.post("/recommendations", json=asked(numResults=3))
    shared = {"recommendationId": answer["recommendationId"], "sentAt": datetime.now(UTC).timestamp()}
    item = answer["itemList"][1]["itemId"]
    click = {"eventId": "c1", "itemId": item, **shared}
    buy = {"eventType": "Purchase", "itemId": item, "eventValue": 12.5, **shared}
    sent = put(click, buy, userId="u1")
    for _ in range(2):  # A retry, which is stored once.
        assert client.request("POST", "/events", json=sent).content == b""
    stored(shop, client)
    (found,) = outcomes(shop.open_lake())
    assert (found.answers, found.shown, found.clicked, found.bought, found.revenue) == (1, 3, 1, 1, 12.5)


def test_events_get_native_columns_and_keep_what_has_none(shop, serve):
    client = serve(shop)
    properties = json.dumps({"price": 9.5, "currency": "EUR", "colour": "red"})
    events = (
        {"eventType": "AddToCart", "eventId": "e1", "itemId": "i1", "properties": properties},
        {"eventType": "Rate", "eventId": "e2", "itemId": "i2", "eventValue": 4},
        {"eventType": "Dance", "eventId": "e3"},
        {"eventType": "Watch", "eventId": "e4", "itemId": "i3", "impression": ["i3", "i7"]},
    )
    assert client.request("POST", "/events", json=put(*events)).status_code == 200
    rows = {row["event_id"]: row for row in stored(shop, client)}
    assert {name: row["type"] for name, row in rows.items()} == {
        "e1": "add_to_cart",
        "e2": "rating",
        "e3": "custom",
        "e4": "view",
        "e4-1": "impression",
        "e4-2": "impression",
    }
    assert rows["e1"]["event_ts"] == datetime.fromtimestamp(SENT_AT, UTC)
    assert (rows["e1"]["price"], rows["e1"]["currency"], rows["e1"]["source"]) == (9.5, "EUR", "personalize")
    assert json.loads(rows["e1"]["properties"])["colour"] == "red"
    assert (rows["e1"]["user_id"], rows["e1"]["anonymous_id"], rows["e1"]["session_id"]) == (None, "s1", "s1")
    assert (rows["e2"]["rating"], rows["e2"]["event_name"], rows["e3"]["event_name"]) == (4, "Rate", "Dance")
    assert [(rows[name]["item_id"], rows[name]["position"]) for name in ("e4-1", "e4-2")] == [("i3", 1), ("i7", 2)]


def test_items_and_users_become_the_state_of_the_day(shop, serve):
    client = serve(shop)
    item = {"name": "Lamp", "price": 9.5, "currency": "EUR", "genre": "a|b", "creationTimestamp": SENT_AT, "size": 3}
    items = [{"itemId": "n1", "properties": json.dumps(item)}, {"itemId": "n2"}]
    users = [{"userId": "p1", "properties": json.dumps({"country": "DE", "AGE": 30})}]
    assert client.request("POST", "/items", json={"datasetArn": f"{ARN}dataset/d/ITEMS", "items": items}).content == b""
    assert client.request("POST", "/users", json={"datasetArn": f"{ARN}dataset/d/USERS", "users": users}).content == b""
    client.stop()
    today = datetime.now(UTC).date()
    rows = {}
    for name in ("item_catalog", "user_profiles"):
        result = take_snapshot(shop.open_lake(), shop.settings, name, today, accept=True)
        assert not result.rejected
        rows[name] = of_day(shop, name, today)
    lamp, nameless = sorted(rows["item_catalog"], key=lambda row: row["item_id"])
    assert (lamp["title"], float(lamp["price"]), lamp["genres"]) == ("Lamp", 9.5, ["a", "b"])
    assert lamp["created_at"] == datetime.fromtimestamp(SENT_AT, UTC)
    assert dict(lamp["attributes"]) == {"size": "3"}
    assert nameless["title"] == "n2"
    (user,) = rows["user_profiles"]
    assert (user["user_id"], user["country"], dict(user["attributes"])) == ("p1", "DE", {"AGE": "30"})


def of_day(shop, name: str, day: date):
    found = shop.open_lake().table(name).scan().to_arrow().to_pylist()
    return [row for row in found if row["snapshot_date"] == day]


BAD = {
    "not JSON": ("/recommendations", b"{", 400, "SerializationException"),
    "neither campaign nor recommender": ("/recommendations", {"userId": "u"}, 400, "InvalidInputException"),
    "an ARN of no form": ("/recommendations", asked(campaignArn="home"), 400, "InvalidInputException"),
    "an unknown campaign": (
        "/recommendations",
        asked(campaignArn=f"{ARN}campaign/none"),
        404,
        "ResourceNotFoundException",
    ),
    "neither user nor item": ("/recommendations", {"campaignArn": HOME}, 400, "InvalidInputException"),
    "too many results": ("/recommendations", asked(numResults=501), 400, "InvalidInputException"),
    "an unknown filter": (
        "/recommendations",
        asked(filterArn=f"{ARN}filter/none"),
        404,
        "ResourceNotFoundException",
    ),
    "a ranking without items": ("/personalize-ranking", asked(), 400, "InvalidInputException"),
    "an event without a time": (
        "/events",
        {"trackingId": "t", "sessionId": "s", "eventList": [{"eventType": "Click"}]},
        400,
        "InvalidInputException",
    ),
    "eleven events": ("/events", put(*[{}] * 11), 400, "InvalidInputException"),
    "properties that are not JSON": ("/events", put({"properties": "{"}), 400, "InvalidInputException"),
    "an item without an id": (
        "/items",
        {"datasetArn": f"{ARN}dataset/d/ITEMS", "items": [{}]},
        400,
        "InvalidInputException",
    ),
    "an action": ("/actions", {}, 404, "UnknownOperationException"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_is_refused_as_the_service_does(empty, serve, bad):
    """Statuses and names are those of the service models in botocore; see the docstring of this module."""
    path, body, status, name = BAD[bad]
    client = serve(empty)
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client.request("POST", path, **sent)
    assert (answer.status_code, answer.headers["x-amzn-ErrorType"]) == (status, name)
    assert set(answer.json()) == {"message"} and answer.json()["message"]
    client.stop()
    empty.consume()
    assert empty.rows() == []


def signed(path, body, key="key-1", secret="secret/1+x") -> dict[str, Any]:
    request = AWSRequest("POST", f"http://serving{path}", data=json.dumps(body), headers={"Host": "serving"})
    SigV4Auth(Credentials(key, secret), "personalize", "eu-west-1").add_auth(request)
    return {"content": json.dumps(body).encode(), "headers": dict(request.headers)}


def refusal(answer):
    return answer.status_code, answer.headers["x-amzn-ErrorType"]


def test_the_access_key_is_a_write_key(shop, serve):
    client = serve(shop, write_keys="key-0,key-1")
    assert client.request("POST", "/recommendations", **signed("/recommendations", asked())).status_code == 200
    wrong = client.request("POST", "/recommendations", **signed("/recommendations", asked(), key="key-2"))
    assert refusal(wrong) == (403, "UnrecognizedClientException")
    none = client.request("POST", "/recommendations", json=asked())
    assert refusal(none) == (403, "MissingAuthenticationTokenException")
    half = client.request("POST", "/recommendations", json=asked(), headers={"Authorization": "AWS4-HMAC-SHA256 x"})
    assert refusal(half) == (400, "IncompleteSignatureException")


def test_with_a_secret_the_signature_is_verified(shop, serve, monkeypatch):
    client = serve(shop, write_keys="key-1,key-2", signing_secrets="key-1:secret/1+x")
    given = signed("/recommendations", asked())
    assert client.request("POST", "/recommendations", **given).status_code == 200
    changed = client.request("POST", "/recommendations", json=asked(userId="u2"), headers=given["headers"])
    assert refusal(changed) == (403, "InvalidSignatureException")
    guessed = client.request("POST", "/recommendations", **signed("/recommendations", asked(), secret="guess"))
    assert refusal(guessed) == (403, "InvalidSignatureException")
    elsewhere = client.request("POST", "/events", **given)
    assert refusal(elsewhere) == (403, "InvalidSignatureException")
    without = client.request("POST", "/recommendations", **signed("/recommendations", asked(), key="key-2"))
    assert refusal(without) == (403, "UnrecognizedClientException")
    monkeypatch.setattr("recsys_data.serving.dialects.personalize.signature.SKEW", timedelta(seconds=-1))
    assert refusal(client.request("POST", "/recommendations", **given)) == (403, "InvalidSignatureException")


def test_too_large_a_body_is_refused(empty, serve):
    client = serve(empty, max_request_bytes=100)
    large = client.request("POST", "/events", json=put({"properties": "x" * 200}))
    assert refusal(large) == (413, "RequestEntityTooLargeException")


def test_items_are_not_taken_where_the_contract_reads_them_elsewhere(empty, serve):
    (empty.settings.contract_dirs[0] / "item_catalog.odcs.yaml").write_text(
        (Path(contracts.__file__).parent / "item_catalog.odcs.yaml")
        .read_text()
        .replace("{data_dir}/landing/item_catalog/{day}/*", "/exports/{day}/*")
    )
    empty.contracts = contracts.load_contracts(*empty.settings.contract_dirs)
    client = serve(empty)
    answer = client.request("POST", "/items", json={"datasetArn": f"{ARN}dataset/d/ITEMS", "items": [{"itemId": "n1"}]})
    assert refusal(answer) == (409, "ResourceInUseException")
    assert "Deliver it there" in answer.json()["message"]
