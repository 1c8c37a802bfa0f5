"""What every model of interactions does alike."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys_data.errors import UserError
from recsys_data.training.baselines import MODELS, load_model, matrix_model
from recsys_data.training.baselines.model import Model
from recsys_data.training.tables import RECOMMENDATIONS
from recsys_data_tests.training.baselines.interactions import interactions, shuffled, tastes

USERS = [f"u{n}" for n in range(60)]


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_a_model_that_says_its_parameters(name: str) -> None:
    model = MODELS[name]()
    assert isinstance(model, Model)
    assert model.name == name
    assert MODELS[name](**json.loads(json.dumps(model.parameters))).parameters == model.parameters


def test_lists_are_ranked_and_hold_unseen_items_once(name: str) -> None:
    data = tastes()
    found = MODELS[name]().fit(data).recommend(["u3", "u1", "u3"], 7)
    assert found.schema.equals(RECOMMENDATIONS)
    assert found["query_id"].to_pylist() == ["u3"] * 7 + ["u1"] * 7
    assert found["rank"].to_pylist() == [*range(1, 8)] * 2
    seen = set(zip(data["user_id"].to_pylist(), data["item_id"].to_pylist(), strict=True))
    rows = found.to_pylist()
    assert not seen & {(row["query_id"], row["item_id"]) for row in rows}
    assert len({(row["query_id"], row["item_id"]) for row in rows}) == 14
    keys = [(row["query_id"] == "u1", -row["score"]) for row in rows]
    assert keys == sorted(keys)


def test_a_list_ends_when_there_are_no_more_items(name: str) -> None:
    found = MODELS[name]().fit(tastes()).recommend(["u0", "stranger"], 1_000, exclude_seen=False)
    assert found.num_rows == 2 * len(set(tastes()["item_id"].to_pylist()))


def test_the_order_of_rows_and_what_else_is_asked_change_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = MODELS[name]().fit(tastes())
    other = MODELS[name]().fit(shuffled(tastes()))
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    assert content(tmp_path / "one") == content(tmp_path / "other")
    together = one.recommend(USERS, 5)
    assert other.recommend(USERS, 5).equals(together)
    assert pa.concat_tables([one.recommend([user], 5) for user in USERS]).equals(together)
    monkeypatch.setattr(matrix_model, "CELLS", 7 * 40)
    assert one.recommend(USERS, 5).equals(together)


def test_a_loaded_model_says_the_same_and_saves_the_same(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().fit(tastes())
    model.save(tmp_path / "one")
    loaded = load_model(tmp_path / "one")
    assert loaded.parameters == model.parameters
    for n, exclude in ((5, True), (9, False)):
        ours = model.recommend(["u2", "stranger"], n, exclude_seen=exclude)
        assert loaded.recommend(["u2", "stranger"], n, exclude_seen=exclude).equals(ours)
    assert loaded.similar(["i00"], 5).equals(model.similar(["i00"], 5))
    loaded.save(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    loaded.save(tmp_path / "one")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_unknown_users_get_a_list_and_unknown_items_none(name: str) -> None:
    model = MODELS[name]().fit(tastes())
    assert model.recommend(["stranger"], 4)["rank"].to_pylist() == [1, 2, 3, 4]
    assert model.similar(["nothing"], 4).num_rows == 0
    if name != "random":
        popular = MODELS["popular"]().fit(tastes()).recommend(["stranger"], 4)
        assert model.recommend(["stranger"], 4)["item_id"].equals(popular["item_id"])


def test_only_candidates_are_recommended(name: str) -> None:
    model = MODELS[name]().fit(tastes())
    found = model.recommend(["u0", "stranger"], 5, candidates=["i04", "i05", "nothing"], exclude_seen=False)
    assert sorted(found["item_id"].to_pylist()) == ["i04", "i04", "i05", "i05"]
    assert model.recommend(["u0"], 5, candidates=[]).num_rows == 0


def test_an_item_is_not_similar_to_itself(name: str) -> None:
    found = MODELS[name]().fit(tastes()).similar(pa.array(["i07", "i03"]), 6)
    assert set(found["query_id"].to_pylist()) == {"i07", "i03"}
    assert not any(row["query_id"] == row["item_id"] for row in found.to_pylist())
    assert max(found["rank"].to_pylist()) <= 6


def test_no_interactions_give_no_recommendations(name: str, tmp_path: Path) -> None:
    model = MODELS[name]().fit(tastes().slice(0, 0))
    assert model.recommend(["u1"], 3).num_rows == 0
    assert model.similar(["i1"], 3).num_rows == 0
    model.save(tmp_path)
    assert load_model(tmp_path).recommend(["u1"], 3).num_rows == 0


def test_weights_that_are_taken_back_count_for_nothing(name: str) -> None:
    data = tastes()
    extra = interactions(("u1", "i00", 3.0, 2.0), ("u1", "i00", 4.0, -2.0), ("u1", "i04", 3.0, -1.0))
    extra = extra.append_column("session_id", pa.array(["u1-0"] * 3))
    before = [row for row in data.to_pylist() if (row["user_id"], row["item_id"]) not in (("u1", "i00"), ("u1", "i04"))]
    kept = pa.Table.from_pylist(before, schema=data.schema)
    model = MODELS[name]().fit(pa.concat_tables([kept, extra]))
    assert {"i00", "i04"} <= set(model.recommend(["u1"], 40)["item_id"].to_pylist())


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: model.recommend(["u1"], 0), "Ask for at least 1"),
        (lambda model: model.similar(["i00"], -1), "Ask for at least 1"),
        (lambda model: model.recommend([3], 1), "users are not all text"),
        (lambda model: model.fit(tastes().drop_columns("weight")), "Expected also weight"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, ask, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask(MODELS[name]().fit(tastes()))


def test_a_model_that_is_not_fitted_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not fitted"):
        MODELS[name]().recommend(["u1"], 1)
    with pytest.raises(UserError, match="is not fitted"):
        MODELS[name]().save(tmp_path)


def test_unknown_parameters_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"Parameters of the model {name}: Object contains unknown field `nothing`"):
        MODELS[name](nothing=1)


def test_a_folder_without_a_whole_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model.json"):
        load_model(tmp_path)
    MODELS["popular"]().fit(tastes()).save(tmp_path)
    with pytest.raises(UserError, match="Expected random of format 1"):
        MODELS["random"].load(tmp_path)
    (tmp_path / "popularity.npy").unlink()
    with pytest.raises(UserError, match="holds no whole model"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"name": "other"}')
    with pytest.raises(UserError, match="unknown kind 'other'"):
        load_model(tmp_path)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys_data.training import baselines

    monkeypatch.setattr(baselines, "find_spec", lambda package: None)
    for model in (one for one in MODELS.values() if one.needs):
        with pytest.raises(UserError, match=rf"Install recsys-data\[{model.needs[1]}\]"):
            model()


def test_popular_items_age_with_their_half_life() -> None:
    data = interactions(("u", "old", 0.0, 3.0), ("v", "new", 60.0, 1.0), ("w", "new", 30.0, 1.0))
    ever = MODELS["popular"]().fit(data).recommend(["x"], 2)
    assert (ever["item_id"].to_pylist(), ever["score"].to_pylist()) == (["old", "new"], [3.0, 2.0])
    now = MODELS["popular"](half_life_days=30).fit(data).recommend(["x"], 2)
    assert (now["item_id"].to_pylist(), now["score"].to_pylist()) == (["new", "old"], [1.5, 0.75])


def test_random_items_differ_by_user_and_seed_and_are_spread_evenly() -> None:
    one, other = (MODELS["random"](seed=seed).fit(tastes()).recommend(USERS, 40, exclude_seen=False) for seed in (0, 1))
    assert not one.equals(other)
    scores = one["score"].to_numpy()
    assert 0 <= scores.min() < 0.01 < 0.99 < scores.max() < 1
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)
    first = [row["item_id"] for row in one.to_pylist() if row["rank"] == 1]
    assert len(set(first)) > 20
