"""Exploration: propensities are exact, and are those of what is drawn."""

import itertools
import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.serving.exploration import Boltzmann, explore, propensities
from recsys_data.simulator.traffic import lists
from recsys_data_tests.serving.conftest import declare

N = 5
SCORES = [0.9, 0.8, 0.8, 0.1, -0.4]


def best_first(count):
    return [1 / (1 + rank) for rank in range(count)]


def plackett_luce(scores, temperature):
    """(rank, position) -> probability, over all orders one after the other."""
    weights = [math.exp((one - scores[0]) / (scores[0] - scores[-1]) / temperature) for one in scores]
    found: defaultdict[tuple[int, int], float] = defaultdict(float)
    for order in itertools.permutations(range(len(scores))):
        chance = 1.0
        for place, rank in enumerate(order):
            chance *= weights[rank] / sum(weights[other] for other in order[place:])
        for place, rank in enumerate(order):
            found[rank, place] += chance
    return found


@given(st.integers(1, 30), st.floats(0, 1), st.text())
def test_a_draw_is_an_order_and_each_item_is_somewhere(count, epsilon, seed):
    order = explore(best_first(count), epsilon, seed)
    assert sorted(order) == list(range(count))
    assert explore(best_first(count), epsilon, seed) == order
    for rank in range(count):
        places = [epsilon / count + (1 - epsilon) * (rank == place) for place in range(count)]
        assert sum(places) == pytest.approx(1)
        assert propensities(best_first(count), order, epsilon)[order.index(rank)] == pytest.approx(
            places[order.index(rank)]
        )


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_what_is_drawn_is_as_frequent_as_its_propensity(epsilon):
    draws = 20_000
    counts = Counter(
        (rank, place) for n in range(draws) for place, rank in enumerate(explore(SCORES, epsilon, f"id{n}"))
    )
    for rank in range(N):
        for place in range(N):
            expected = epsilon / N + (1 - epsilon) * (rank == place)
            # Five standard deviations.
            assert abs(counts[rank, place] / draws - expected) <= 5 * (expected * (1 - expected) / draws) ** 0.5


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 100.0])
def test_propensities_by_scores_are_those_of_all_orders_together(temperature):
    exact = plackett_luce(SCORES, temperature)
    for order in itertools.permutations(range(N)):
        found = propensities(SCORES, order, Boltzmann(temperature))
        assert found == pytest.approx([exact[rank, place] for place, rank in enumerate(order)], rel=1e-5, abs=1e-9)
    # Of a page, those of its positions.
    assert propensities(SCORES, [3, 1], Boltzmann(temperature), 2) == pytest.approx(
        [exact[3, 2], exact[1, 3]], rel=1e-5, abs=1e-9
    )


@pytest.mark.parametrize("uniform", [0.0, 0.4])
def test_an_order_by_scores_is_as_frequent_as_its_propensities(uniform):
    how, draws = Boltzmann(0.3, uniform), 20_000
    counts = Counter((rank, place) for n in range(draws) for place, rank in enumerate(explore(SCORES, how, f"id{n}")))
    for (rank, place), by_scores in plackett_luce(SCORES, 0.3).items():
        expected = uniform / N + (1 - uniform) * by_scores
        assert propensities(SCORES, [rank], how, place) == pytest.approx([expected], rel=1e-5)
        assert abs(counts[rank, place] / draws - expected) <= 5 * (expected * (1 - expected) / draws) ** 0.5


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=25), st.floats(0.05, 100), st.text())
def test_by_any_scores_each_item_is_somewhere_with_a_chance(scores, temperature, seed):
    how, ordered = Boltzmann(temperature), sorted(scores, reverse=True)
    order = explore(ordered, how, seed)
    assert sorted(order) == list(range(len(scores))) and explore(ordered, how, seed) == order
    chances = [propensities(ordered, [rank] * len(scores), how) for rank in (0, len(scores) - 1)]
    assert [sum(one) for one in chances] == pytest.approx([1.0, 1.0], rel=1e-5)
    assert all(0 < one <= 1 for one in propensities(ordered, order, how))


def test_propensities_are_those_of_the_simulator():
    import numpy as np

    order = explore(best_first(12), lists.EXPLORATION, "some id")
    theirs = lists.propensity(np.full(12, 12), np.array(order) + 1, np.arange(12) + 1)
    assert propensities(best_first(12), order, lists.EXPLORATION) == pytest.approx(theirs.tolist())


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


def test_a_scenario_can_explore_by_scores(shop, serve):
    declare(shop, name="try", n=3, shortlist=6, exploration={"temperature": 0.5}, candidates=["popular"])
    declare(shop, name="sure", n=6, shortlist=6, candidates=["popular"])
    client = serve(shop)
    best = client.recommend(scenario="sure")["items"]
    rank = {one["item_id"]: number for number, one in enumerate(best)}
    exact = plackett_luce([one["score"] for one in best], 0.5)
    first, second = (client.recommend(scenario="try", offset=offset, n=3, recommendation_id="r") for offset in (0, 3))
    shown = first["items"] + second["items"]
    assert {one["item_id"] for one in shown} == set(rank) and [one["position"] for one in shown] == [1, 2, 3, 4, 5, 6]
    for one in shown:
        assert one["propensity"] == pytest.approx(exact[rank[one["item_id"]], one["position"] - 1], rel=1e-5)
