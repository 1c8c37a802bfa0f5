"""Off-policy estimates: the definitions, what is refused, and that the order of rows does not matter."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_data.errors import UserError
from recsys_data.training.off_policy import evaluate

FOUR = {"reward": [1, 0, 1, 0], "propensity": [0.5, 0.25, 0.5, 0.1], "target_probability": [0.9, 0.1, 0.0, 0.4]}


def logged(rows: int, seed: int = 0, clusters: int | None = None) -> pa.Table:
    rng = np.random.default_rng(seed)
    propensity = rng.uniform(0.1, 1, rows)
    chance = rng.uniform(0.05, 0.3, rows)
    return pa.table(
        {
            "reward": (rng.random(rows) < chance).astype(float),
            "propensity": propensity,
            "target_probability": rng.uniform(0, 1, rows),
            "cluster_id": [f"list-{i}" for i in rng.integers(clusters or rows, size=rows)],
            "q_logged": chance,
            "q_target": chance.mean() + np.zeros(rows),
        }
    )


def test_estimates_follow_their_definitions():
    found = evaluate(FOUR | {"q_logged": [0.5, 0.1, 0.2, 0.0], "q_target": [0.4, 0.3, 0.1, 0.2]})
    weight = np.array([1.8, 0.4, 0.0, 4.0])
    value = {name: one.value for name, one in found.estimates.items()}
    assert value["on_policy"] == 0.5
    assert value["ips"] == pytest.approx(1.8 / 4)
    assert value["snips"] == pytest.approx(1.8 / 6.2)
    assert value["dr"] == pytest.approx((0.4 + 0.9 + 0.3 - 0.04 + 0.1 + 0.2) / 4)
    assert found.estimates["ips"].relative == pytest.approx(0.9)
    assert found.effective_sample_size == pytest.approx(6.2**2 / (weight**2).sum())
    assert (found.rows, found.clusters, found.largest_weight, found.clipped_rows) == (4, 4, 4.0, 0)
    assert found.mean_weight == pytest.approx(6.2 / 4)


def test_clipped_weights_count_for_no_more_than_the_clip():
    found = evaluate(FOUR, clip=1.0)
    assert found.estimates["ips"].value == pytest.approx(1 / 4)
    assert found.estimates["snips"].value == pytest.approx(1 / 2.4)
    assert (found.clipped_rows, found.largest_weight) == (2, 4.0)


def test_a_policy_is_worth_its_own_mean_on_its_own_log():
    rows = logged(500)
    own = rows.set_column(2, "target_probability", rows["propensity"])
    found = evaluate(own)
    assert found.effective_sample_size == pytest.approx(500)
    assert found.estimates["ips"] == found.estimates["snips"] == found.estimates["on_policy"]


def test_dr_does_not_depend_on_the_reward_model_where_it_is_right_about_the_logged_action():
    rows = logged(400)
    perfect = rows.set_column(4, "q_logged", rows["reward"])
    assert evaluate(perfect).estimates["dr"].value == pytest.approx(np.mean(rows["q_target"]))


def test_the_order_of_rows_changes_no_bit():
    rows = logged(3000, clusters=400)
    order = np.random.default_rng(3).permutation(3000)
    assert evaluate(rows) == evaluate(rows.take(order)) == evaluate(rows.take(order[::-1]))
    without = rows.drop_columns("cluster_id")
    assert evaluate(without) == evaluate(without.take(order))


def test_the_names_of_clusters_may_be_numbers():
    rows = logged(300, clusters=40)
    numbers = pa.array([int(name.removeprefix("list-")) + 100 for name in rows["cluster_id"].to_pylist()])
    found = evaluate(rows.set_column(3, "cluster_id", numbers))
    assert found.clusters == evaluate(rows).clusters == 40
    assert found.estimates["ips"].value == pytest.approx(evaluate(rows).estimates["ips"].value)


def test_another_seed_moves_the_interval_and_not_the_value():
    rows = logged(300)
    one, other = evaluate(rows, seed=1).estimates["ips"], evaluate(rows, seed=2).estimates["ips"]
    assert one == evaluate(rows, seed=1).estimates["ips"]
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def test_intervals_hold_the_value_and_widen_with_confidence():
    rows = logged(800, clusters=200)
    narrow, wide = (evaluate(rows, confidence=level).estimates for level in (0.8, 0.99))
    for name, one in narrow.items():
        assert wide[name].low < one.low < one.value < one.high < wide[name].high, name


def explored(seed: int, visitors: int = 150, items: int = 10) -> dict[str, np.ndarray]:
    """Lists of visitors, of whom a fifth see a random order: the other policy's items are rare, and count 9-fold."""
    rng = np.random.default_rng(seed)
    keenness = rng.uniform(0.2, 1.8, visitors)
    lists = rng.geometric(0.4, visitors)
    visitor = np.repeat(np.arange(visitors), lists)
    random = rng.random(len(visitor)) < 0.2
    item = np.where(random, rng.integers(items, size=len(visitor)), 0)
    liked = np.where(item == items - 1, 0.2, 0.1)
    return {
        "reward": (rng.random(len(visitor)) < liked * keenness[visitor]).astype(float),
        "propensity": np.where(item == 0, 0.8, 0.0) + 0.2 / items,
        "target_probability": np.where(item == items - 1, 0.2, 0.8 / (items - 1)),
        "cluster_id": visitor,
        "q_logged": np.full(len(visitor), 0.1),
        "q_target": np.full(len(visitor), 0.1),
    }


def test_intervals_cover_the_true_value_as_often_as_they_promise_where_few_rows_count_much():
    truth, logs = 0.2 * 0.2 + 0.8 * 0.1, 300
    covered = dict.fromkeys(("ips", "snips", "dr"), 0)
    for seed in range(logs):
        found = evaluate(explored(seed), resamples=300).estimates
        for name in covered:
            covered[name] += found[name].low <= truth <= found[name].high
    # Two standard errors below 95 %; BCa alone covers 92 to 93 %.
    assert min(covered.values()) / logs >= 0.925, covered


def test_rows_of_one_cluster_count_as_one_when_they_repeat_each_other():
    rows = logged(300)
    copied = pa.concat_tables([rows] * 4)
    wide = evaluate(rows).estimates["ips"]
    clustered = evaluate(copied).estimates["ips"]
    assert clustered.high - clustered.low == pytest.approx(wide.high - wide.low, rel=0.05)
    naive = evaluate(copied.drop_columns("cluster_id")).estimates["ips"]
    assert naive.high - naive.low < 0.6 * (wide.high - wide.low)


def test_one_row_that_outweighs_all_others_gives_an_interval_of_any_confidence():
    rows = {"reward": [0.0] * 60 + [1.0], "propensity": [0.5] * 60 + [1e-6], "target_probability": [0.5] * 61}
    for confidence in (0.5, 0.95, 0.999999):
        for name, one in evaluate(rows, confidence=confidence).estimates.items():
            assert 0 <= one.low <= one.value <= one.high and np.isfinite(one.high), name


def test_without_any_reward_there_is_no_relative_value():
    found = evaluate(FOUR | {"reward": [0, 0, 0, 0]}).estimates["ips"]
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert (found.relative, found.relative_low, found.relative_high) == (None, None, None)


def test_to_dict_holds_plain_values():
    found = evaluate(FOUR).to_dict()
    assert found["estimates"]["snips"]["value"] == evaluate(FOUR).estimates["snips"].value
    assert found["rows"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": [0.5, 0.0, 0.5, 0.1]}, r"propensity is 0 in row 1 \(1 of 4 rows"),
        ({"propensity": [0.5, 0.2, 1.5, 0.1]}, "propensity is 1.5 in row 2.*above 0 and at most 1"),
        ({"propensity": [0.5, None, 0.5, None]}, "2 of 4 logged actions have no propensity, .*in row 1"),
        ({"propensity": [0.5, float("nan"), 0.5, 0.1]}, "propensity is nan in row 1"),
        ({"propensity": ["0.5", "1", "1", "1"]}, "propensity has the type string"),
        ({"target_probability": [0.1, -0.1, 0, 0]}, "target_probability is -0.1 in row 1"),
        ({"target_probability": [0.1, 0.1, 2, 0]}, "target_probability is 2 in row 2"),
        ({"target_probability": [0, 0, 0, 0]}, "takes no logged action"),
        ({"reward": [1, 0, float("inf"), 0]}, "reward is inf in row 2.*finite"),
        ({"reward": [1, 0, 1]}, "differ in length: .*'reward': 3"),
        ({"cluster_id": ["a", "a", "a", "a"]}, "4 logged actions in 1 clusters"),
        ({"cluster_id": ["a", "b", None, "a"]}, "1 of 4 logged actions have no cluster_id"),
        ({"cluster_id": ["a", "b"]}, "differ in length: .*'cluster_id': 2"),
        ({"q_logged": [0, 0, 0, 0]}, "but not q_target"),
        ({"reward": [], "propensity": [], "target_probability": []}, "0 logged actions in 0 clusters"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        evaluate(FOUR | change)


def test_a_missing_column_is_named():
    with pytest.raises(UserError, match="but not propensity"):
        evaluate({"reward": [1, 0], "target_probability": [1, 1]})


@pytest.mark.parametrize("options", [{"confidence": 1.0}, {"resamples": 10}, {"clip": 0.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match="Cannot evaluate with"):
        evaluate(FOUR, **options)
