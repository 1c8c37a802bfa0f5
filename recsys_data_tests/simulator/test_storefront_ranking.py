"""Recommended lists say what an evaluation needs to know, and the truth about them is the truth."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from recsys_data.simulator import ranking_truth
from recsys_data.simulator.ranking_truth import Ranking, logged, table
from recsys_data.simulator.rhythm import DAY
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.simulator.traffic.behaviour import EXAMINATION, KIND, Visit, attraction, behave
from recsys_data.simulator.traffic.lists import MODELS, RECOMMENDED, VARIANTS
from recsys_data.simulator.traffic.sessions import draw
from recsys_data.simulator.traffic.stream import Shares
from recsys_data.simulator.world import World, build
from recsys_data.training.off_policy import evaluate

START = ranking_truth.START
RANKED = ("model", "variant", "score", "propensity")
PLAN = Plan(events=20_000, end=datetime(2026, 3, 30, tzinfo=UTC), seed=5, shares=Shares(0, 0, 0, 0))


@pytest.fixture(scope="module")
def many() -> tuple[World, Visit]:
    """A small shop, in which shortlists differ in size, with many visits."""
    world = build(users=300, guests=30, items=500)
    return world, visits(world, 4, 12_000)


def visits(world: World, seed: int, count: int) -> Visit:
    rng = np.random.default_rng(seed)
    return behave(world, rng, draw(world, rng, START, START + 7 * DAY, count, 0.0))


@pytest.fixture(scope="module")
def run() -> tuple[list[dict[str, Any]], dict[tuple[str, str], dict[str, Any]]]:
    """Events of a run, and its recommended lists' shortlists: by recommendation and item."""
    tables, events = [], []
    for batch in simulate(PLAN, lambda visit: tables.append(table(build(), visit))):
        events += [json.loads(line) for line in batch.lines]
    rows = [row for one in tables for row in one.to_pylist()]
    return events, {(row["recommendation_id"], row["item_id"]): row for row in rows}


def test_impressions_of_recommended_lists_say_who_ranked_them_and_with_which_propensity(run):
    events, shortlists = run
    impressions = [event for event in events if event["type"] == "impression"]
    made = [event for event in impressions if event.get("recommendation_id")]
    assert 0.3 < len(made) / len(impressions) < 0.7
    for event in made:
        row = shortlists[event["recommendation_id"], event["item_id"]]
        assert [event[name] for name in ("list_id", "model", "variant", "score")] == [
            row[name] for name in ("list_id", "model", "variant", "score")
        ]
        ranked_there = row["rank"] == event["position"]
        assert event["propensity"] == pytest.approx(0.2 / row["candidates"] + 0.8 * ranked_there)
        assert event["position"] <= row["shown"]
    assert {event["list_id"] for event in made} == {"home", "for_you", "similar"}
    assert not [event for event in impressions if not event.get("recommendation_id") and set(RANKED) & set(event)]


def test_what_follows_from_a_recommended_item_names_the_recommendation(run):
    events, _ = run
    shown = {(e["recommendation_id"], e["item_id"]) for e in events if e["type"] == "impression" and "model" in e}
    later = defaultdict(list)
    for event in events:
        if event.get("recommendation_id") and event["type"] in ("click", "view", "add_to_cart", "purchase"):
            later[event["type"]].append((event["recommendation_id"], event["item_id"]) in shown)
    assert set(later) == {"click", "view", "add_to_cart", "purchase"}
    # Of a visit that began before the first line or ends after the last, some events are missing.
    assert all(np.mean(found) > 0.99 for found in later.values())
    bought = [event for event in events if event["type"] == "purchase"]
    assert 0.2 < len(later["purchase"]) / len(bought) < 0.9


def test_everybody_stays_in_one_variant(run):
    events, _ = run
    variants = defaultdict(set)
    for event in events:
        if "variant" in event and event.get("user_id"):
            variants[event["user_id"]].add((event["variant"], event["model"]))
    assert all(len(found) == 1 for found in variants.values())
    each = Counter(next(iter(found)) for found in variants.values())
    assert set(each) == set(zip(VARIANTS, MODELS, strict=True))
    assert 0.4 < each["control", "storefront-1"] / each.total() < 0.6


def test_propensities_are_the_shares_in_which_items_appear(many):
    """Summed over the shortlist, indicator / propensity has the mean 1 for every item: the sum has the mean n."""
    _, visit = many
    size = np.zeros(len(visit.lists.kind))
    size[visit.decisions.list] = visit.decisions.size
    shown = visit.shown
    at = np.flatnonzero(RECOMMENDED[visit.lists.kind[shown.list]])
    assert len(np.unique(size[shown.list[at]])) > 3
    for position in range(1, 9):
        here = at[shown.position[at] == position]
        excess = 1 / shown.propensity[here] - size[shown.list[here]]
        assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(here)), position


def test_a_click_needs_a_look_and_a_liking_and_nothing_else(many):
    """Clicks by position and by attraction are as many as the model says."""
    _, visit = many
    goal = visit.sessions.goal[visit.lists.session[visit.shown.list]]
    chance = EXAMINATION[visit.shown.position - 1] * attraction(goal, visit.shown.affinity)
    clicks, events = visit.events.kind == KIND["click"], visit.events
    clicked = np.bincount(events.position[clicks], minlength=13)
    expected = np.bincount(visit.shown.position, weights=chance, minlength=13)
    assert (abs(clicked - expected)[1:] < 4 * np.sqrt(expected[1:]) + 1).all()


def test_policies_put_each_item_at_one_position(many):
    world, visit = many
    ranking = Ranking.of(visit.sessions, visit.lists, visit.decisions)
    size = visit.decisions.size
    for share in (0.0, 0.3, 1.0):
        policy = ranking.explored(visit.decisions.affinity, share)
        for axis in (1, 2):
            assert np.allclose(policy.sum(axis=axis), np.arange(12) < size[:, None])
    random = np.random.default_rng(0).normal(size=visit.decisions.score.shape)
    values = [
        ranking.value(policy)
        for policy in (ranking.explored(random, 0.0), ranking.logging(), ranking.explored(visit.decisions.affinity, 0))
    ]
    assert values == sorted(values)
    assert table(world, visit).num_rows == size.sum()


def test_the_truth_of_the_logging_policy_is_what_happens(many):
    _, visit = many
    ranking = Ranking.of(visit.sessions, visit.lists, visit.decisions)
    rows = logged(visit, ranking.logging())
    assert rows["propensity"].equals(rows["target_probability"])
    reward = np.asarray(rows["reward"])
    expected = ranking.value(ranking.logging())
    assert abs(reward.mean() - expected) < 4 * reward.std() / np.sqrt(len(reward))
    assert len(reward) == visit.decisions.shown.sum()


def test_the_truth_of_a_run_says_what_policies_are_worth():
    truth = [batch.truth.ranking_dict() for batch in simulate(PLAN)][-1]
    worth = truth["clicks_per_impression"]
    assert worth["random"] < worth["logging"] < worth["without_exploration"] < worth["by_liking"]
    assert worth["control"] < worth["treatment"]
    assert 3 * truth["lists"] < truth["impressions"] < 12 * truth["lists"]
    assert truth["examination"][:2] == [1.0, 0.88]
    assert truth["share_of_clicks_lost"] == 0


def test_the_truth_counts_the_clicks_that_faults_destroy(read_lines):
    plan = Plan(events=20_000, end=PLAN.end, seed=5, shares=Shares(0.02, 0.08, 0.05, 0))
    lines: list[bytes] = []
    for batch in simulate(plan):
        lines += batch.lines
        truth = batch.truth
    assert read_lines(lines)["by_type"]["click"] == truth.clicks - truth.lost_clicks
    assert 0.08 < truth.ranking_dict()["share_of_clicks_lost"] == truth.lost_clicks / truth.clicks < 0.15


def test_intervals_of_95_percent_cover_the_true_value_of_a_policy_in_95_of_100_runs():
    """Within three: for a policy that ranks by true liking and shuffles a fifth of the lists.

    Chance alone moves a count of 100 by two or three from one set of seeds to the next; `benchmarks.off_policy` makes
    1,000 runs for each of five policies.
    """
    world = build()
    many = ranking_truth.sample(world, seed=1, visits=40_000)
    truth = many.value(many.explored(many.decisions.affinity, 0.2))
    covered = Counter()
    for seed in range(100):
        visit = visits(world, 4000 + seed, 250)
        ranking = Ranking.of(visit.sessions, visit.lists, visit.decisions)
        target = ranking.explored(visit.decisions.affinity, 0.2)
        guessed = attraction(np.zeros((len(visit.decisions), 1), np.int64), 0.7 * visit.decisions.affinity)
        found = evaluate(logged(visit, target, guessed), seed=seed)
        covered.update(name for name, one in found.estimates.items() if one.low <= truth <= one.high)
    assert {name: 92 <= covered[name] <= 98 for name in ("ips", "snips", "dr")} == {
        "ips": True,
        "snips": True,
        "dr": True,
    }, covered
    assert covered["on_policy"] < 92  # another policy
