"""Published clients of other systems, unmodified, against a server on loopback: boto3, pygorse and gorsejs.

gorsejs is looked for in the folder that RECSYS_TEST_NODE_CLIENTS names (it holds `node_modules`). Without a library its
tests are skipped, but in CI they fail.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from recsys_data.ingestion.streaming.collector.server import bind, server_of
from recsys_data.serving.app import create_app
from recsys_data.serving.outcomes import Outcomes, outcomes
from recsys_data_tests.support.serving import ServingShop

pytestmark = pytest.mark.integration

KEY, SECRET = "the-write-key", "the/secret+x"
ARN = "arn:aws:personalize:eu-west-1:123456789012:"
HOME = f"{ARN}campaign/home"
SECONDS = 120
CLIENTS = Path(__file__).parent / "clients"


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, but CI must run every client.")
    pytest.skip(f"{what}.")


class Running:
    """A server with a key, on a free port."""

    def __init__(self, shop: ServingShop) -> None:
        self.shop = shop
        settings = msgspec.structs.replace(shop.settings, write_keys=KEY, signing_secrets=f"{KEY}:{SECRET}")
        self._listener = bind("127.0.0.1", 0, keyless=True)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = server_of(create_app(shop.open_lake(), shop.log, settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        self._listener.close()

    def outcomes(self) -> list[Outcomes]:
        """What became of the answers, once the server has stopped."""
        self.stop()
        self.shop.consume()
        return outcomes(self.shop.open_lake())

    def personalize(self, service: str, secret: str = SECRET) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )


@pytest.fixture
def running(shop: ServingShop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = Running(shop)
    yield found
    found.stop()


def code_of(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(ClientError) as error:
        call()
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_boto3_recommends_and_its_events_join_the_answer(running):
    runtime, events = running.personalize("personalize-runtime"), running.personalize("personalize-events")
    found = runtime.get_recommendations(campaignArn=HOME, userId="u1", numResults=3, context={"device": "phone"})
    items = [one["itemId"] for one in found["itemList"]]
    ranked = runtime.get_personalized_ranking(campaignArn=HOME, userId="u1", inputList=["i20", "i1", "i4"])
    assert {one["itemId"] for one in ranked["personalizedRanking"]} == {"i20", "i1", "i4"}
    shared = {"recommendationId": found["recommendationId"], "itemId": items[0], "sentAt": datetime.now(UTC)}
    events.put_events(
        trackingId="t",
        userId="u1",
        sessionId="s",
        eventList=[
            {"eventType": "Click", "impression": items, "properties": '{"colour": "red"}', **shared},
            {"eventType": "Purchase", "eventValue": 9.5, **shared},
        ],
    )
    properties = '{"name": "Lamp", "price": 3.5, "currency": "EUR"}'
    events.put_items(datasetArn=f"{ARN}dataset/d/ITEMS", items=[{"itemId": "n1", "properties": properties}])
    events.put_users(datasetArn=f"{ARN}dataset/d/USERS", users=[{"userId": "p1", "properties": '{"country": "DE"}'}])
    (one,) = running.outcomes()
    assert (one.answers, one.shown, one.clicked, one.bought, one.revenue) == (2, 6, 1, 1, 9.5)


def test_boto3_raises_the_exceptions_of_the_service(running):
    runtime = running.personalize("personalize-runtime")
    unknown = f"{ARN}campaign/none"
    with pytest.raises(runtime.exceptions.ResourceNotFoundException, match="names no scenario"):
        runtime.get_recommendations(campaignArn=unknown, userId="u1")
    with pytest.raises(runtime.exceptions.InvalidInputException, match="userId"):
        runtime.get_recommendations(campaignArn=HOME)
    forged = running.personalize("personalize-runtime", secret="guess")
    assert code_of(lambda: forged.get_recommendations(campaignArn=HOME, userId="u1")) == (
        "InvalidSignatureException",
        403,
    )


def test_pygorse_does_what_it_can_do(running):
    if not importlib.util.find_spec("gorse"):
        missing("The Python library pygorse is not installed")
    gorse = importlib.import_module("gorse")
    client = gorse.Gorse(running.url, KEY, timeout=SECONDS)
    scored = client.get_recommend("u1", n=3, write_back_type="read", write_back_delay="1m")
    assert len(scored) == 3 and all(isinstance(one, gorse.Score) for one in scored)
    assert client.get_recommend("u1", n=2, offset=1)
    assert client.get_neighbors("i10", n=2)
    assert client.session_recommend([{"FeedbackType": "like", "UserId": "u1", "ItemId": "i10", "Timestamp": ""}], n=2)
    now = datetime.now(UTC).isoformat()
    assert client.insert_feedback("click", "u1", scored[0].id, now, value=2) == {"RowAffected": 1}
    both = {"FeedbackType": "like", "UserId": "u1", "ItemId": "i9", "Timestamp": now}
    assert client.insert_feedbacks([both, both]) == {"RowAffected": 2}
    assert client.insert_item({"ItemId": "n1", "Comment": "Lamp", "Labels": ["a"]}) == {"RowAffected": 1}
    assert client.update_item("n1", is_hidden=True, categories=["c"]) == {"RowAffected": 1}
    item = client.get_item("n1")
    assert (item["IsHidden"], item["Categories"], item["Comment"], item["Labels"]) == (True, ["c"], "Lamp", ["a"])
    assert client.get_items(5)[0] == [item]
    assert client.delete_item("n1") == {"RowAffected": 1}
    assert client.insert_user({"UserId": "p1", "Labels": ["a"]}) == client.insert_users([{"UserId": "p2"}])
    assert client.get_user("p1")["Labels"] == ["a"] and len(client.get_users(5)[0]) == 2
    assert client.delete_user("p1") == {"RowAffected": 1}
    assert client.list_feedbacks("none", "u1") == [] == client.get_feedbacks(5)[0]
    for call, status in (
        (lambda: client.get_item("n1"), 404),
        (lambda: client.delete_feedback("u1", "i9"), 501),
        (lambda: gorse.Gorse(running.url, "wrong").get_user("p2"), 401),
    ):
        with pytest.raises(gorse.GorseException) as error:
            call()
        assert error.value.status_code == status
    asynchronous = asyncio.run(gorse.AsyncGorse(running.url, KEY).get_recommend("u1", n=3))
    assert len(asynchronous) == 3
    (home, _) = running.outcomes()
    assert (home.scenario, home.clicked) == ("home", 1)


def test_gorsejs_does_what_it_can_do(running):
    folder = Path(os.environ.get("RECSYS_TEST_NODE_CLIENTS", "")) / "node_modules"
    if not shutil.which("node") or not (folder / "gorsejs").is_dir():
        missing("node, or gorsejs below RECSYS_TEST_NODE_CLIENTS, is not there")
    done = subprocess.run(
        ["node", str(CLIENTS / "gorse.js"), running.url, KEY],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=os.environ | {"NODE_PATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[name] for name in ("upserted", "inserted", "again", "updated", "category", "deleted")] == [1] * 6
    assert len(found["recommended"]) == 3 and all(isinstance(one, str) for one in found["recommended"])
    for name in ("popular", "latest", "neighbors", "session"):
        assert found[name] and set(found[name][0]) == {"Id", "Score"}
    assert found["user"] == {"UserId": "js", "Labels": ["a"], "Subscribe": None, "Comment": "c"}
    assert found["users"]["Users"][0]["Comment"] == "d"
    assert [one["ItemId"] for one in found["items"]["Items"]] == ["js/1", "js2"]
    assert found["items"]["Items"][0] == found["item"]
    assert found["changed"]["Categories"] == ["d", "e", "f"]
    assert found["errors"] == [{"code": code, "known": True} for code in (404, 501, 501)]
    became = running.outcomes()
    assert [(one.answers, one.shown) for one in became if one.scenario == "home"] == [(1, 3)]
    # It counts for the answer that showed the item last, which may be that of the session.
    assert sum(one.clicked for one in became) == 1
