"""The published policy value: the policy as published, and its rows as the lake holds them."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.published.open_bandit import Prior, estimate, read_prior, reproduce, thompson_sampling

PRIOR = Prior(np.array([3.0, 2.0, 4.0, 1.0, 2.0]), np.array([50.0, 90.0, 60.0, 40.0, 20.0]))


def test_the_policy_draws_one_rate_an_item_at_a_time_and_shows_the_highest():
    random = np.random.RandomState(7)
    counts = np.zeros((5, 3))
    for _ in range(500):
        for position, item in enumerate(random.beta(a=PRIOR.alpha, b=PRIOR.beta).argsort()[::-1][:3]):
            counts[item, position] += 1
    found = thompson_sampling(PRIOR, simulations=500, seed=7)
    assert found.tolist() == (counts / 500).tolist()
    assert found.sum(axis=0) == pytest.approx([1, 1, 1])


OTHERS = [(4, "model", "bts"), (5, "list_id", "men")]


def rows(count: int = 400) -> pa.Table:
    rng = np.random.default_rng(0)
    item = rng.integers(5, size=count)
    return pa.table(
        {
            "item_id": [f"all-{i}" for i in item],
            "position": rng.integers(1, 4, size=count),
            "propensity": np.full(count, 0.2),
            "recommendation_id": [f"random-all-{i}" for i in range(count)],
            "model": ["random"] * count,
            "list_id": ["all"] * count,
            "label": (rng.random(count) < 0.1 + 0.1 * (item == 4)).astype(float),
        }
    )


def test_the_published_number_is_the_relative_value_by_propensity():
    table = rows()
    shares = thompson_sampling(PRIOR)
    item = [int(name.removeprefix("all-")) for name in table["item_id"].to_pylist()]
    weight = shares[item, np.asarray(table["position"]) - 1] / 0.2
    reward = np.asarray(table["label"])
    expected = (weight * reward).mean() / reward.mean()
    [(published, ours)] = reproduce(table, PRIOR).values()
    assert published == 1.198126
    assert ours == pytest.approx(expected)
    others = [table.set_column(at, name, pa.array([other] * 400)) for at, name, other in OTHERS]
    assert estimate(pa.concat_tables([*others, table]), PRIOR) == estimate(table, PRIOR)
    assert estimate(table.take(np.arange(399, -1, -1)), PRIOR) == estimate(table, PRIOR)


def test_the_prior_is_read_from_the_package(tmp_path):
    path = tmp_path / "obp/policy/conf/prior_bts.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("all:\n  alpha: [1.0, 2.0]\n  beta: [3.0, 4.0]\nmen: {alpha: [], beta: []}\n")
    assert [column.tolist() for column in read_prior(tmp_path)] == [[1.0, 2.0], [3.0, 4.0]]
