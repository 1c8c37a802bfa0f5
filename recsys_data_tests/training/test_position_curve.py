"""The chances of positions to be looked at, from lists whose order was explored."""

import numpy as np
import pytest

from recsys_data.errors import UserError
from recsys_data.training.position_curve import position_curve

LOOKED_AT = 0.85 ** np.arange(8)


def lists(seed=0, count=40_000, exploration=0.5):
    """Lists of eight items that attract less by rank; short lists attract more, and are as the first of them."""
    rng = np.random.default_rng(seed)
    size = len(LOOKED_AT)
    order = np.tile(np.arange(size), (count, 1))
    explored = rng.random(count) < exploration
    order[explored] = rng.permuted(order[explored], axis=1)
    length = rng.integers(3, size + 1, count)
    row, place = np.nonzero(np.arange(size) < length[:, None])
    rank = order[row, place]
    attraction = 0.5 / (1 + 0.3 * rank) * np.where(length[row] < 6, 1.0, 0.4)
    return {
        "list": row,
        "position": place + 1,
        "reward": rng.random(len(row)) < LOOKED_AT[place] * attraction,
        "propensity": exploration / size + (1 - exploration) * (rank == place),
    }


def test_the_planted_curve_is_recovered_although_models_and_lengths_confound_it():
    logged = lists(count=200_000)
    found = position_curve(logged)
    assert np.abs(found.smoothed / LOOKED_AT - 1).max() < 0.03
    assert (np.abs(found.relative - LOOKED_AT)[1:] < 4 * found.error[1:]).all()
    clicks = np.bincount(logged["position"], logged["reward"])[1:]
    naive = clicks / found.impressions
    assert np.abs(naive / naive[0] / LOOKED_AT - 1).max() > 0.3
    assert (found.clicks == clicks).all()


def test_names_of_lists_may_be_text():
    logged = lists(count=2000)
    named = logged | {"list": np.char.add("r", logged["list"].astype(str))}
    assert (position_curve(named).relative == position_curve(logged).relative).all()


def test_what_makes_no_sense_is_refused():
    good = {"list": [1, 1, 1], "position": [1, 2, 3], "reward": [1, 1, 1], "propensity": [0.5] * 3}
    for wrong in ({"position": [0, 1, 2]}, {"propensity": [0.5, 0, 1]}, {"reward": [1, 1]}):
        with pytest.raises(UserError, match="not as expected"):
            position_curve(good | wrong)
    with pytest.raises(UserError, match="Only 1 positions have clicks"):
        position_curve(good | {"reward": [1, 0, 0]})
