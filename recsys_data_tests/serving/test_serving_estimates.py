"""What a challenger would be worth, from logged propensities."""

import json
import random
from functools import cache

import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.serving.estimates import Shown, estimated, estimates
from recsys_data.serving.exploration import Boltzmann, explore, propensities
from recsys_data.training.registry import CHALLENGER
from recsys_data_tests.serving.conftest import declare, items_of
from recsys_data_tests.serving.test_serving_outcomes import now

LIKED = {"a": 0.05, "b": 0.1, "c": 0.2, "d": 0.4}
SEEN = (1.0, 0.7, 0.5)
SCORES = [1.0, 0.9, 0.8, 0.5]


@cache
def chances(order, how):
    return propensities(SCORES, order, how)


def logged(lists, how, seed):
    """Impressions of visitors who like the items that the champion puts last, of which three are shown."""
    draw = random.Random(seed)
    found = []
    for number in range(lists):
        shortlist = tuple(LIKED)
        order = explore(SCORES, how, f"{seed}-{number}")
        for position, (rank, propensity) in enumerate(zip(order, chances(tuple(order), how), strict=True), 1):
            if position <= len(SEEN):
                item = shortlist[rank]
                clicked = draw.random() < LIKED[item] * SEEN[position - 1]
                found.append(Shown(f"r{number}", f"v{number % 500}", shortlist, item, position, propensity, clicked))
    return found


def worth(order):
    return sum(LIKED[item] * seen for item, seen in zip(order, SEEN, strict=False)) / len(SEEN)


@pytest.mark.parametrize("how", [0.4, Boltzmann(0.5)], ids=["uniform", "by scores"])
def test_the_estimates_hold_what_the_challenger_is_worth(how):
    order = tuple(reversed(LIKED))
    held = {"snips": 0, "dr": 0}
    for seed in range(20):
        found = estimated("home", "next_items/2", logged(2_000, how, seed), lambda visitor, items: items[::-1])
        assert (found.answers, found.visitors, found.missing) == (2_000, 500, "")
        for name in held:
            one = getattr(found, name)
            held[name] += one.low <= worth(order) <= one.high
    assert min(held.values()) >= 17


def test_a_challenger_that_orders_alike_is_worth_the_same():
    shown = logged(2_000, 0.2, 1)
    found = estimated("home", "next_items/2", shown, lambda visitor, items: items)
    assert found.dr.low <= worth(tuple(LIKED)) <= found.dr.high


def test_without_exploration_nothing_can_be_said():
    assert "exploration" in estimated("home", "m/1", [], lambda visitor, items: items).missing
    found = estimated("home", "m/1", logged(50, 0.0, 1), lambda visitor, items: (*items[1:], items[0]))
    assert found.snips is None and "takes no logged action" in found.missing


def test_the_challenger_of_a_scenario_is_estimated_from_what_was_shown_since_it_was_registered(
    shop, serve, monkeypatch
):
    declare(shop, name="home", exploration=0.5, shortlist=6, n=4, candidates=["popular"])
    early = serve(shop)
    early.recommend(user_id="u1")
    early.stop()
    shop.consume()
    assert estimates(shop.open_lake(), shop.settings) == []
    shop.register("popular", CHALLENGER)
    client = serve(shop)
    answers = [client.recommend(user_id=f"u{n % 20}", n=4) for n in range(60)]
    client.stop()
    shop.happen(
        *(
            (
                n / 100,
                "click",
                f"u{n % 20}",
                items_of(one)[0],
                {"recommendation_id": one["recommendation_id"]} | now(""),
            )
            for n, one in enumerate(answers)
            if n % 3 == 0
        )
    )
    found = {one.scenario: one for one in estimates(shop.open_lake(), shop.settings)}
    home = found["home"]
    assert (home.challenger, home.answers, home.visitors) == ("next_items/2", 60, 20)
    assert home.on_policy.value == pytest.approx(20 / 240)
    # It orders as the champion does, as far as both know the items.
    assert home.snips.low <= home.on_policy.value <= home.snips.high
    assert found["cart"].missing
    monkeypatch.setenv("RECSYS_DATA_DIR", shop.settings.dir)
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", shop.settings.contracts)
    result = CliRunner().invoke(cli, ["recommendations", "--off-policy", "--json"])
    assert json.loads(result.stdout)[0]["challenger"] == "next_items/2"
    assert "SNIPS" in CliRunner().invoke(cli, ["recommendations", "--off-policy"]).stdout
