import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys_data.errors import UserError
from recsys_data.training.baselines import RANKERS, load_ranker
from recsys_data.training.metrics import evaluate
from recsys_data.training.tables import RECOMMENDATIONS
from recsys_data_tests.training.baselines.interactions import shuffled


def rows(seed: int = 0, queries: int = 120, each: int = 8) -> pa.Table:
    """Followed is what is cheap and on the phone; `noise` says nothing."""
    random = np.random.default_rng(seed)
    count = queries * each
    price, device = random.random(count), random.choice(["phone", "desktop"], count)
    taste = 2 * (1 - price) + (device == "phone") + 0.3 * random.standard_normal(count)
    label = np.where(taste > 2.2, 5.0, np.where(taste > 1.6, 1.0, 0.0))
    missing = random.random(count) < 0.05
    return pa.table(
        {
            "query_id": np.repeat([f"q{n}" for n in range(queries)], each),
            "item_id": [f"i{n}" for n in random.permuted(np.tile(np.arange(20), count // 20), axis=0)],
            "user_id": np.repeat([f"u{n}" for n in range(queries)], each),
            "price": pa.array(price, mask=missing),
            "device": pa.array(device, mask=missing).dictionary_encode(),
            "noise": random.integers(0, 5, count),
            "sale": random.random(count) < 0.5,
            "position": np.tile(np.arange(1, each + 1), queries),
            "label": label,
            "label_type": np.where(label > 0, "click", "none"),
        }
    )


def truth(table: pa.Table) -> pa.Table:
    found = table.group_by(["query_id", "item_id"]).aggregate([("label", "max")])
    return found.rename_columns(["query_id", "item_id", "gain"])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_orders_unseen_queries_better_than_chance() -> None:
    ranker = RANKERS["ranker"](trees=60).fit(rows())
    test = rows(seed=1)
    found = ranker.rank(test)
    assert found.schema.equals(RECOMMENDATIONS)
    ours = evaluate(found, truth(test), ("nDCG@3",)).metrics["nDCG@3"]
    chance = found.set_column(2, "score", pa.array(np.random.default_rng(0).random(len(found))))
    assert ours > 0.9 > 0.7 > evaluate(chance, truth(test), ("nDCG@3",)).metrics["nDCG@3"]


def test_importance_names_the_features_and_no_outcome_is_one() -> None:
    found = RANKERS["ranker"](trees=30).fit(rows()).importance()
    assert set(found["feature"].to_pylist()) == {"price", "device", "noise", "sale"}
    assert found["feature"].to_pylist()[:2] == ["price", "device"]
    assert sum(found["gain"].to_pylist()) == pytest.approx(1)


@pytest.mark.parametrize("parameters", [{}, {"position_bias": True}, {"feature_fraction": 0.5, "seed": 3}])
def test_the_order_of_rows_changes_nothing(tmp_path: Path, parameters: dict) -> None:
    for name, change in (("one", lambda table: table), ("other", shuffled)):
        RANKERS["ranker"](trees=20, **parameters).fit(change(rows()), change(rows(3))).save(tmp_path / name)
    assert content(tmp_path / "one") == content(tmp_path / "other")
    one, other = (load_ranker(tmp_path / name) for name in ("one", "other"))
    assert one.rank(rows(2)).equals(other.rank(shuffled(rows(2))))


def test_a_loaded_ranker_says_the_same_and_saves_the_same(tmp_path: Path) -> None:
    ranker = RANKERS["ranker"](trees=20).fit(rows())
    ranker.save(tmp_path / "one")
    loaded = load_ranker(tmp_path / "one")
    saved = json.loads((tmp_path / "one" / "model.json").read_text())["parameters"]
    assert loaded.parameters == ranker.parameters == saved
    assert loaded.rank(rows(1)).equals(ranker.rank(rows(1)))
    assert loaded.importance().equals(ranker.importance())
    loaded.save(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_learning_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    random = rows(seed=5).set_column(8, "label", pa.array(np.random.default_rng(5).integers(0, 2, 960).astype(float)))
    RANKERS["ranker"](trees=200, patience=3).fit(rows(), validation=random).save(tmp_path)
    assert (tmp_path / "trees.txt").read_text().count("Tree=") < 60


def test_text_that_was_not_learned_and_nulls_are_missing_values() -> None:
    ranker = RANKERS["ranker"](trees=20).fit(rows())
    some = rows(1).slice(0, 8)
    other = some.set_column(4, "device", pa.array(["watch"] * 8))
    null = some.set_column(4, "device", pa.nulls(8, pa.string()))
    assert ranker.rank(other).equals(ranker.rank(null))
    assert ranker.rank(some.slice(0, 0)).num_rows == 0


def test_an_item_that_a_query_has_twice_keeps_its_best_score() -> None:
    ranker = RANKERS["ranker"](trees=20).fit(rows())
    some = rows(1).slice(0, 8)
    best = ranker.rank(some).slice(0, 1)
    doubled = pa.concat_tables([some, some]).set_column(0, "query_id", pa.array(["q0"] * 16))
    assert ranker.rank(doubled).num_rows == len(set(some["item_id"].to_pylist()))
    assert ranker.rank(doubled)["score"][0] == best["score"][0]


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (lambda t: t.set_column(8, "label", pa.array(np.zeros(960))), {}, "None of the 960 rows has a label above 0"),
        (lambda t: t.slice(0, 0), {}, "None of the 0 rows has a label above 0"),
        (lambda t: t, {"features": ["age"]}, "The rows have no column age"),
        (
            lambda t: t.append_column("v", pa.array([[1.0]] * 960)),
            {"features": ["v"]},
            r"v \(list<.*\) cannot be features",
        ),
        (lambda t: t.select(["query_id", "item_id", "label"]), {}, "The rows have no features"),
        (lambda t: t.drop_columns("query_id"), {}, "Expected also query_id"),
        (
            lambda t: pa.concat_tables([t] * 11).set_column(0, "query_id", pa.array(["q"] * 960 * 11)),
            {},
            "A query has 10,560 rows; LightGBM takes at most 10,000",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_refused(change, parameters: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RANKERS["ranker"](**parameters).fit(change(rows()))


def test_what_cannot_be_ranked_or_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not fitted"):
        RANKERS["ranker"]().rank(rows())
    ranker = RANKERS["ranker"](trees=2).fit(rows())
    with pytest.raises(UserError, match="no column price, which this ranker was fitted with"):
        ranker.rank(rows().drop_columns("price"))
    ranker.save(tmp_path)
    (tmp_path / "trees.txt").unlink()
    with pytest.raises(UserError, match="holds no whole model"):
        load_ranker(tmp_path)
    with pytest.raises(UserError, match="Parameters of the model ranker"):
        RANKERS["ranker"](trees=0)
