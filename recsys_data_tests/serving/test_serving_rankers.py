"""Answers that a ranker orders by features from the online store."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from recsys_data.durable import scratch
from recsys_data.errors import Transient
from recsys_data.features.parity import parity
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.served import is_sampled
from recsys_data.serving.online.updater import Updater
from recsys_data.serving.online_store.open import open_online_store
from recsys_data.training.baselines.ranker import LambdaRank
from recsys_data.training.registry import CHAMPION, Version, register, store_artefact
from recsys_data_tests.serving.conftest import declare, items_of
from recsys_data_tests.serving.test_serving_outcomes import now

CLICKS, RATE, HOURS = "item_engagement__clicks_7d", "item_engagement__ctr_7d", "user_item__hours_since_seen"
FEATURES = (CLICKS, RATE, "user_activity__events_7d", HOURS, "user_activity__segment")
SAMPLED = next(f"u{n}" for n in range(20) if is_sampled(f"u{n}"))
OTHER = next(f"u{n}" for n in range(20) if not is_sampled(f"u{n}"))


def learn(shop, features=FEATURES, name="impressions"):
    """Register a ranker to which an item with more clicks is better."""
    draw = np.random.default_rng(1)
    clicks = draw.integers(0, 6, 400)
    columns = {
        CLICKS: pa.array(clicks),
        RATE: pa.array((clicks + 1) / 20),
        "user_activity__segment": pa.array(["new", None] * 200),
    }
    rows = {one: columns.get(one, pa.array(draw.random(400))) for one in features}
    rows |= {
        "query_id": pa.array([f"q{n // 10}" for n in range(400)]),
        "item_id": pa.array([f"i{n}" for n in range(400)]),
    }
    model = LambdaRank(features=features, trees=20, leaves=4, min_rows=5).fit(
        pa.table(rows | {"label": pa.array((clicks > 3).astype(float))})
    )
    with scratch(shop.settings.training_dir / "staging", "model") as folder:
        model.save(folder / "model")
        artefact = store_artefact(shop.settings, folder / "model")
    about = {"training_set_version": 1, "training_set_inputs": "", "metrics": {}, "software": {}}
    version = Version(
        model=name,
        version=0,
        registered_at=datetime.now(UTC),
        kind="ranker",
        parameters=dict(model.parameters),
        artefact=artefact,
        **about,
    )
    register(shop.open_lake(), version, CHAMPION)


@pytest.fixture
def ranked(shop):
    """Visitors who clicked `i30` most, then `i20`; a ranker that knows; a store that is equal to the lake."""
    liked = [("i30", 5), ("i20", 2), ("i25", 1)]
    clicks = [(item, n) for item, times in liked for n in range(times)]
    shop.happen(*((0, "click", f"c{n}", item, now("")) for item, n in clicks), (0, "view", SAMPLED, "i20", now("")))
    with closing(open_online_store(shop.settings)) as store:
        Updater(shop.open_lake(), store).update()
    learn(shop)
    declare(shop, name="home", n=6, candidates=["popular"], ranker="impressions", exploration=0, budget_ms=10_000)
    return shop


def test_candidates_are_ordered_by_features_and_impressions_say_which(ranked, serve):
    client = serve(ranked)
    plain = client.recommend(scenario="popular", n=6)
    answers = [client.recommend(user_id=one) for one in (SAMPLED, OTHER)]
    for answer in answers:
        assert answer["model"] == "impressions/1" and items_of(answer)[0] == "i30"
        assert items_of(answer) != items_of(plain)
        assert {one["reason"] for one in answer["items"]} == {"popular"}
        scores = [one["score"] for one in answer["items"]]
        assert scores == sorted(scores, reverse=True) and all(0 < one < 1 for one in scores)
    client.stop()
    ranked.consume()
    said = {
        row["event_id"]: msgspec.json.decode(row["properties"]) for row in ranked.rows() if row["type"] == "impression"
    }
    for answer, sampled in zip(answers, (True, False), strict=True):
        for item in answer["items"]:
            properties = said[f"{answer['recommendation_id']}-{item['position']}"]
            assert set(properties["read"]["positions"]) >= {"interactions"} and properties["read"]["moments"]
            assert ("features" in properties) == sampled
    first = said[f"{answers[0]['recommendation_id']}-1"]["features"]
    assert set(first) == set(FEATURES) and (first[CLICKS], first[HOURS]) == (5, None)
    # What was served is what the lake gives at those positions.
    found = parity(ranked.open_lake(), datetime.now(UTC) - timedelta(days=1))
    assert (found.values, found.different) == (6 * len(FEATURES), 0), found.differences


def test_without_a_store_that_can_be_read_candidates_stay_as_they_are(ranked, serve, monkeypatch):
    client = serve(ranked)

    def away(*_):
        raise Transient("the store is away")

    monkeypatch.setattr(FeatureReader, "read", away)
    answer = client.recommend(user_id=SAMPLED)
    assert answer["model"] == "popular" and len(answer["items"]) == 6
    assert client.counted("serving_models_unanswered_total") == 1


def test_a_ranker_that_is_not_there_is_named(shop, serve):
    declare(shop, name="home", n=6, candidates=["popular"], ranker="impressions")
    client = serve(shop)
    assert client.recommend()["model"] == "popular"
    (about,) = client.get("/health").json()["rankers"]
    assert about["served"] is None and about["failure"] == "there is no champion of impressions"


@pytest.mark.parametrize(
    ("feature", "why"),
    [
        ("session__events", "it is computed from sessions"),
        ("user_item__hours_alone", "user_item has no such feature"),
        ("mood__good", "there is no such feature view"),
    ],
)
def test_a_ranker_that_needs_what_is_not_kept_online_is_refused_when_it_is_loaded(shop, serve, feature, why):
    declare(shop, name="home", n=6, candidates=["popular"], ranker="impressions")
    learn(shop, (CLICKS, feature))
    (about,) = serve(shop).get("/health").json()["rankers"]
    assert about["served"] is None and f"needs {feature}, which is not kept online: {why}" in about["failure"]
