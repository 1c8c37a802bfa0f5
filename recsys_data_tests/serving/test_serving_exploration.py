"""Exploration: propensities are exact, and are those of what is drawn."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.serving.exploration import explore, propensities
from recsys_data.simulator.traffic import lists
from recsys_data_tests.serving.conftest import declare

N = 5


@given(st.integers(1, 30), st.floats(0, 1), st.text())
def test_a_draw_is_an_order_and_each_item_is_somewhere(count, epsilon, seed):
    order = explore(count, epsilon, seed)
    assert sorted(order) == list(range(count))
    assert explore(count, epsilon, seed) == order
    for rank in range(count):
        places = [epsilon / count + (1 - epsilon) * (rank == place) for place in range(count)]
        assert sum(places) == pytest.approx(1)
        assert propensities(order, epsilon)[order.index(rank)] == pytest.approx(places[order.index(rank)])


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_what_is_drawn_is_as_frequent_as_its_propensity(epsilon):
    draws = 20_000
    counts = Counter((rank, place) for n in range(draws) for place, rank in enumerate(explore(N, epsilon, f"id{n}")))
    for rank in range(N):
        for place in range(N):
            expected = epsilon / N + (1 - epsilon) * (rank == place)
            # Five standard deviations.
            assert abs(counts[rank, place] / draws - expected) <= 5 * (expected * (1 - expected) / draws) ** 0.5


def test_propensities_are_those_of_the_simulator():
    import numpy as np

    order = explore(12, lists.EXPLORATION, "some id")
    theirs = lists.propensity(np.full(12, 12), np.array(order) + 1, np.arange(12) + 1)
    assert propensities(order, lists.EXPLORATION) == pytest.approx(theirs.tolist())


def test_answers_show_the_best_of_a_shuffled_shortlist_with_its_propensities(shop, serve):
    declare(shop, name="try", n=3, shortlist=6, exploration=0.5, candidates=["popular"])
    declare(shop, name="sure", n=6, shortlist=6, candidates=["popular"])
    client = serve(shop)
    best = [one["item_id"] for one in client.recommend(scenario="sure")["items"]]
    draws = 1500
    counts = Counter()
    for _ in range(draws):
        for one in client.recommend(scenario="try")["items"]:
            expected = 0.5 / 6 + 0.5 * (best.index(one["item_id"]) == one["position"] - 1)
            assert one["propensity"] == pytest.approx(expected)
            counts[one["item_id"], one["position"]] += 1
    for item in best:
        for position in (1, 2, 3):
            expected = 0.5 / 6 + 0.5 * (best.index(item) == position - 1)
            assert abs(counts[item, position] / draws - expected) <= 5 * (expected * (1 - expected) / draws) ** 0.5
