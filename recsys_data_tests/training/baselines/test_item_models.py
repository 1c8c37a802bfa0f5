"""Each model against its formula, on small dense matrices."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.errors import UserError
from recsys_data.training import tables
from recsys_data.training.baselines import MODELS
from recsys_data.training.baselines.model import Model
from recsys_data.training.baselines.session_knn import SessionKnn
from recsys_data.training.metrics import evaluate
from recsys_data.training.tables import codes, vocabulary
from recsys_data_tests.training.baselines.interactions import interactions, tastes

seeds = st.integers(0, 10_000)


def weights(seed: int, users: int = 7, items: int = 6) -> np.ndarray:
    """Users x items; 0: no interaction. Every user and item has one."""
    random = np.random.default_rng(seed)
    found = random.integers(1, 5, (users, items)) * (random.random((users, items)) < 0.5).astype(float)
    found[np.arange(users), np.arange(users) % items] = 1
    return found


def rows_of(matrix: np.ndarray) -> pa.Table:
    return interactions(
        *((f"u{user}", f"i{item}", 0.0, float(matrix[user, item])) for user, item in np.argwhere(matrix))
    )


def scores_of(model: Model, shape: tuple[int, int]) -> np.ndarray:
    """All scores of known users; popular items that follow are 0."""
    found = np.zeros(shape)
    for row in model.recommend([f"u{n}" for n in range(shape[0])], 100, exclude_seen=False).to_pylist():
        found[int(row["query_id"][1:]), int(row["item_id"][1:])] = max(row["score"], 0)
    return found


def best_of_columns(matrix: np.ndarray, n: int) -> np.ndarray:
    """The n largest of each column; of equal ones those of the later rows."""
    found = np.zeros_like(matrix)
    for column in range(matrix.shape[1]):
        order = sorted(range(len(matrix)), key=lambda row: (-matrix[row, column], -row))[:n]
        found[order, column] = matrix[order, column]
    return found


@given(seeds, st.integers(1, 6), st.sampled_from([0.0, 10.0]))
def test_item_knn_adds_up_shrunk_cosines_of_the_nearest_items(seed: int, n: int, shrinkage: float) -> None:
    x = weights(seed)
    norm = np.linalg.norm(x, axis=0)
    cosine = x.T @ x / (np.outer(norm, norm) + shrinkage)
    np.fill_diagonal(cosine, 0)
    model = MODELS["item_knn"](neighbours=n, shrinkage=shrinkage).fit(rows_of(x))
    # Equal similarities may differ in their last bits here and there, so that others are nearest.
    if n == 6 or len(np.unique(cosine.round(9))) == 1 + 15:
        assert scores_of(model, x.shape) == pytest.approx(x @ best_of_columns(cosine, n))


@given(seeds, st.sampled_from([1.0, 0.5]), st.sampled_from([0.0, 0.6]))
def test_rp3beta_is_a_walk_of_three_steps(seed: int, alpha: float, beta: float) -> None:
    x = (weights(seed) > 0).astype(float)
    to_item = (x / x.sum(axis=1, keepdims=True)) ** alpha
    to_user = (x.T / x.T.sum(axis=1, keepdims=True)) ** alpha
    walk = to_user @ to_item / x.sum(axis=0) ** beta
    np.fill_diagonal(walk, 0)
    model = MODELS["rp3beta"](alpha=alpha, beta=beta).fit(rows_of(weights(seed)))
    assert scores_of(model, x.shape) == pytest.approx(x @ walk)


@given(seeds, st.sampled_from([1.0, 50.0]))
def test_ease_is_the_closed_form(seed: int, l2: float) -> None:
    x = (weights(seed) > 0).astype(float)
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(6))
    b = np.eye(6) - inverse / np.diag(inverse)
    np.fill_diagonal(b, 0)
    model = MODELS["ease"](l2=l2).fit(rows_of(weights(seed)))
    assert scores_of(model, x.shape) == pytest.approx(np.maximum(x @ b, 0), abs=1e-5)
    of_first = {row["item_id"]: row["score"] for row in model.similar(["i0"], 10).to_pylist()}
    assert of_first == {f"i{n}": pytest.approx(b[0, n], abs=1e-5) for n in range(1, 6)}


@given(seeds, st.sampled_from(["jaccard", "lift", "counts"]), st.sampled_from([1, 2]))
def test_sar_is_affinity_times_similarity(seed: int, similarity: str, least: int) -> None:
    x = weights(seed)
    together = (x > 0).T.astype(float) @ (x > 0)
    each = np.diag(together)
    together = np.where(together < least, 0, together)
    expected = {
        "counts": together,
        "jaccard": together / (each[:, None] + each[None, :] - together),
        "lift": together / (each[:, None] * each[None, :]),
    }[similarity]
    model = MODELS["sar"](similarity=similarity, min_cooccurrence=least, half_life_days=None).fit(rows_of(x))
    assert scores_of(model, x.shape) == pytest.approx(x @ expected)


def test_affinity_of_sar_halves_with_each_half_life_and_adds_up() -> None:
    data = interactions(("u", "a", 0.0, 4.0), ("u", "a", 30.0, 1.0), ("v", "b", 60.0), ("v", "a", 60.0))
    model = MODELS["sar"](similarity="jaccard", half_life_days=30).fit(data)
    # a is with u and v, b with v: Jaccard 1 / 2.
    assert model.recommend(["u"], 5)["score"].to_pylist() == [pytest.approx((4 / 4 + 1 / 2) / 2)]


def test_neighbours_of_sar_may_be_cut() -> None:
    x = weights(3)
    whole, cut = (MODELS["sar"](neighbours=n).fit(rows_of(x)) for n in (None, 2))
    # Of the two, the item itself is one.
    assert cut.similar(["i0"], 10).equals(whole.similar(["i0"], 1))


def test_popular_items_follow_those_that_a_model_knows_something_about() -> None:
    data = interactions(("u", "a"), ("v", "a"), ("v", "b"), ("w", "c"), ("x", "c"), ("x", "d"), ("y", "c"))
    for name in ("item_knn", "rp3beta", "sar"):
        found = MODELS[name]().fit(data).recommend(["u"], 5)
        assert found["item_id"].to_pylist() == ["b", "c", "d"], name
        assert found["score"][0].as_py() > 0 > found["score"][1].as_py() > found["score"][2].as_py()


def test_ease_says_what_to_do_about_too_many_items_and_leaves_out_rare_ones() -> None:
    x = weights(4)
    with pytest.raises(UserError, match="at most 5 are allowed .* min_item_interactions, or use item_knn"):
        MODELS["ease"](max_items=5).fit(rows_of(x))
    counts = (x > 0).sum(axis=0)
    least = int(np.sort(counts)[3])
    model = MODELS["ease"](min_item_interactions=least, max_items=5).fit(rows_of(x))
    kept = {f"i{n}" for n in np.flatnonzero(counts >= least)}
    assert 1 < len(kept) < 6
    assert set(model.recommend(["u0"], 10, exclude_seen=False)["item_id"].to_pylist()) <= kept
    assert model.similar([f"i{n}" for n in range(6) if f"i{n}" not in kept], 5).num_rows == 0


def test_a_user_of_rare_items_only_gets_popular_ones_from_ease() -> None:
    data = interactions(("u", "rare"), *((user, item) for user in "abc" for item in ("x", "y")), ("a", "z"), ("b", "z"))
    found = MODELS["ease"](min_item_interactions=2).fit(data).recommend(["u"], 3)
    assert found["item_id"].to_pylist() == ["y", "x", "z"]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_weights_that_als_cannot_hold_are_named() -> None:
    data = interactions(("u", "a", 0.0, 1e300), ("v", "a", 1.0, 1e300), ("v", "b", 1.0, 1.0))
    with pytest.raises(UserError, match=r"ALS found no factors .* weights, of at most 1e\+300, may be too large"):
        MODELS["als"]().fit(data)


@pytest.mark.parametrize("name", ["ease", "als"])
def test_threads_change_nothing(name: str, tmp_path: Path) -> None:
    from threadpoolctl import threadpool_limits

    data = tastes(users=400, items=240, each=20)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            model = MODELS[name]().fit(data)
            model.save(tmp_path / str(threads))
            found.append(model.recommend([f"u{n}" for n in range(400)], 10))
    assert found[0].equals(found[1])
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes()


def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from recsys_data.training.baselines import ease, neighbours

    models: dict[str, Callable[[], Model]] = {name: MODELS[name] for name in ("item_knn", "rp3beta", "sar", "ease")}
    for name, model in models.items():
        model().fit(tastes()).save(tmp_path / name / "one")
    for module in (neighbours, ease):
        monkeypatch.setattr(module, "CELLS", 100)
    for name, model in models.items():
        model().fit(tastes()).save(tmp_path / name / "two")
        for file in (tmp_path / name / "one").iterdir():
            assert file.read_bytes() == (tmp_path / name / "two" / file.name).read_bytes(), name


def session(user: str, name: str, day: float, *items: str) -> list[tuple]:
    return [(user, item, day + place / 1_000, name) for place, item in enumerate(items)]


def session_model(*sessions: list[tuple], **parameters: int) -> SessionKnn:
    rows = [row for one in sessions for row in one]
    data = interactions(*(row[:3] for row in rows)).append_column("session_id", pa.array([row[3] for row in rows]))
    return SessionKnn(**parameters).fit(data)


def test_a_session_gets_what_similar_sessions_held() -> None:
    model = session_model(
        session("u", "1", 0, "a", "b", "c"),
        session("v", "2", 1, "a", "d"),
        session("w", "3", 2, "e", "f"),
    )
    found = {row["item_id"]: row["score"] for row in model.recommend_for_session(["a", "b", "new"], 3).to_pylist()}
    assert found["c"] == pytest.approx(2 / np.sqrt(2 * 3))
    assert found["d"] == pytest.approx(1 / np.sqrt(2 * 2))
    assert list(found) == ["c", "d", "f"]
    assert found["f"] < 0
    assert model.recommend_for_session(["a"], 9, candidates=["d", "e"])["item_id"].to_pylist() == ["d", "e"]
    assert model.recommend_for_session(["a"], 1, exclude_seen=False)["item_id"].to_pylist() == ["a"]
    assert model.recommend_for_session([], 2).num_rows == 2


def test_the_current_session_of_a_user_is_the_last_one() -> None:
    model = session_model(
        session("u", "1", 0, "a", "b"),
        session("v", "2", 1, "a", "c"),
        session("u", "3", 2, "x"),
        session("w", "4", 3, "x", "y"),
    )
    assert model.recommend(["u"], 1)["item_id"].to_pylist() == ["y"]
    assert model.recommend(["v"], 1)["item_id"].to_pylist() == ["b"]


def test_of_many_sessions_the_most_recent_ones_are_compared() -> None:
    sessions = [session(f"u{n}", f"s{n}", float(n), "a", f"b{n}") for n in range(5)]
    found = session_model(*sessions, sample=2).recommend_for_session(["a"], 5).to_pylist()
    assert {row["item_id"] for row in found if row["score"] > 0} == {"b3", "b4"}
    nearest = session_model(*sessions, session("v", "t", -1, "a", "z", "y"), neighbours=5).recommend_for_session(
        ["a"], 9
    )
    assert {row["item_id"] for row in nearest.to_pylist() if row["score"] > 0} == {f"b{n}" for n in range(5)}


def test_sessions_are_needed() -> None:
    with pytest.raises(UserError, match="have no column session_id"):
        MODELS["session_knn"]().fit(tastes().drop_columns("session_id"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("item_knn", {}), ("rp3beta", {}), ("ease", {}), ("sar", {}), ("session_knn", {}), ("als", {"factors": 8})],
)
def test_every_model_learns_a_taste_that_popular_and_random_items_do_not_have(name: str, parameters: dict) -> None:
    data = tastes(users=200, items=80, each=12)
    users = [f"u{n}" for n in range(200)]
    liked = {"query_id": [], "item_id": [], "gain": []}
    for n in range(200):
        for item in range(n % 4, 80, 4):
            liked["query_id"].append(f"u{n}")
            liked["item_id"].append(f"i{item:02}")
            liked["gain"].append(1.0)
    found = {}
    for kind, chosen in ((name, parameters), ("popular", {}), ("random", {})):
        lists = MODELS[kind](**chosen).fit(data).recommend(users, 10)
        found[kind] = evaluate(lists, pa.table(liked), ("P@10",)).metrics["P@10"]
    assert found[name] > 0.8
    assert max(found["popular"], found["random"]) < 0.4


@given(st.sets(st.text(max_size=3), max_size=8), st.lists(st.text(max_size=3), max_size=3), st.sampled_from([0, 200]))
def test_ids_are_found_among_sorted_ones_whether_few_or_many_are_asked_for(
    ids: set[str], asked: list[str], few: int
) -> None:
    known = vocabulary([pa.array(sorted(ids), pa.string())])
    values = pa.array([*asked, *sorted(ids)], pa.string())
    with patch.object(tables, "FEW", few):
        assert tables.codes_of_few(values, known).tolist() == codes(values, known).tolist()
