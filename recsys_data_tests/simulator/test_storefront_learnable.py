"""The traffic holds what `world` and `behaviour` say there is to learn."""

import numpy as np
import pytest

from recsys_data.simulator.rhythm import DAY
from recsys_data.simulator.traffic.behaviour import KIND, Visit, behave
from recsys_data.simulator.traffic.lists import CATEGORY
from recsys_data.simulator.traffic.sessions import BROWSE, BUY, WORK, draw
from recsys_data.simulator.world import World, build

START = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def small() -> tuple[World, Visit]:
    """A small shop with many visits, so that each person is seen often."""
    world = build(users=300, guests=30, items=500)
    rng = np.random.default_rng(4)
    return world, behave(world, rng, draw(world, rng, START, START + 7 * DAY, 12_000, 0.0))


def happened(visit: Visit, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Person and item of each event of a kind."""
    chosen = visit.events.kind == KIND[kind]
    return visit.sessions.person[visit.events.session[chosen]], visit.events.item[chosen]


def rate_by_affinity(world: World, visit: Visit, tried: str, did: str) -> list[float]:
    """Share of `tried` that led to `did`, by quarter of affinity."""
    tries, successes = (world.affinity(*happened(visit, kind)) for kind in (tried, did))
    edges = np.quantile(tries, [0.25, 0.5, 0.75])
    counts = [np.bincount(np.searchsorted(edges, values), minlength=4) for values in (successes, tries)]
    return (counts[0] / counts[1]).tolist()


@pytest.mark.parametrize(
    ("tried", "did"),
    [("impression", "click"), ("click", "add_to_cart"), ("click", "like"), ("click", "purchase")],
)
def test_each_step_follows_affinity(small: tuple[World, Visit], tried: str, did: str) -> None:
    world, visit = small
    rates = rate_by_affinity(world, visit, tried, did)
    assert rates == sorted(rates)
    assert rates[3] > 2 * rates[0]


def test_dislikes_go_against_affinity(small: tuple[World, Visit]) -> None:
    world, visit = small
    rates = rate_by_affinity(world, visit, "click", "dislike")
    assert rates[0] > 2 * rates[3]


@pytest.mark.parametrize(("kind", "least"), [("rating", 0.5), ("scroll", 0.3), ("dwell", 0.15)])
def test_amounts_follow_affinity(small, kind, least):
    world, visit = small
    amount = visit.events.amount[visit.events.kind == KIND[kind]]
    assert np.corrcoef(amount, world.affinity(*happened(visit, kind)))[0, 1] > least


def test_affinity_is_of_low_rank_and_of_unit_size():
    world = build(users=400, guests=0, items=400)
    matrix = world.affinity(np.arange(400)[:, None], np.arange(400)[None, :])
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert (singular[:10] ** 2).sum() / (singular**2).sum() > 0.999  # 8 factors and the price
    assert abs(matrix.mean()) < 0.15
    assert 0.7 < matrix.std() < 1.6


def test_popularity_beats_chance_and_taste_beats_popularity(small):
    """Recommend 10 items for later clicks; "taste" ranks by what was clicked together (cosine)."""
    world, visit = small
    click = np.nonzero(visit.events.kind == KIND["click"])[0]
    click = click[np.argsort(visit.events.time[click])]
    person, item = visit.sessions.person[visit.events.session[click]], visit.events.item[click]
    train = np.arange(len(click)) < 0.7 * len(click)
    counts = np.zeros((len(world.people), len(world.items.item_id)))
    np.add.at(counts, (person[train], item[train]), 1)
    vectors = counts / (np.linalg.norm(counts, axis=0) + 5)
    taste = counts @ (vectors.T @ vectors)
    popular = np.broadcast_to(counts.sum(axis=0), taste.shape)
    chance = np.random.default_rng(0).random(taste.shape)

    def hits(score: np.ndarray) -> float:
        best = np.argsort(-score, axis=1)[:, :10]
        return float((best[person[~train]] == item[~train][:, None]).any(axis=1).mean())

    assert hits(popular) > 2 * hits(chance)
    assert hits(taste) > 1.3 * hits(popular)


def test_popularity_is_zipf_like():
    popularity = np.sort(build().items.popularity)[::-1]
    ranks = np.arange(1, len(popularity) + 1)
    slope = np.polyfit(np.log(ranks[10:]), np.log(popularity[10:]), 1)[0]
    assert -1.2 < slope < -0.8
    assert popularity[:40].sum() > 0.2


def test_positions_further_down_are_clicked_less(small):
    """In category lists, whose order has nothing to do with liking."""
    _, visit = small
    there = visit.lists.kind[visit.events.list] == CATEGORY
    shown, clicked = (
        np.bincount(visit.events.position[there & (visit.events.kind == KIND[kind])], minlength=13)
        for kind in ("impression", "click")
    )
    rate = clicked[1:11] / shown[1:11]
    assert rate[0] > 1.5 * rate[-1]


def test_goals_and_modes_change_what_happens(small):
    _, visit = small
    sessions, events = visit.sessions, visit.events

    def per_visit(kind: str, chosen: np.ndarray) -> float:
        return float(np.bincount(events.session[events.kind == KIND[kind]], minlength=len(sessions))[chosen].mean())

    assert per_visit("purchase", sessions.goal == BUY) > 4 * per_visit("purchase", sessions.goal == BROWSE)
    dwell = events.kind == KIND["dwell"]
    at_work = (sessions.mode == WORK)[events.session]
    assert events.amount[dwell & at_work].mean() < 0.7 * events.amount[dwell & ~at_work].mean()


def test_steps_come_in_order(small):
    """Within a visit an item is shown, then clicked, carted and only then bought or given back."""
    _, visit = small
    events = visit.events
    earliest: dict[str, dict[tuple[int, int], int]] = {}
    for kind in ("impression", "click", "view", "add_to_cart", "purchase", "refund"):
        chosen = np.nonzero(events.kind == KIND[kind])[0]
        times = earliest.setdefault(kind, {})
        for i in chosen[np.argsort(-events.time[chosen])].tolist():
            times[int(events.session[i]), int(events.item[i])] = int(events.time[i])
    steps = list(earliest.items())
    for (_, before), (kind, after) in zip(steps, steps[1:], strict=False):
        assert after, kind
        assert all(before[key] < time for key, time in after.items()), kind


def test_no_item_is_shown_twice_in_one_list(small):
    _, visit = small
    shown = visit.events.kind == KIND["impression"]
    pairs = np.stack([visit.events.list[shown], visit.events.item[shown]])
    assert len(np.unique(pairs, axis=1).T) == shown.sum()


def test_only_people_with_an_account_buy_and_only_after_the_login(small):
    world, visit = small
    bought = visit.events.kind == KIND["purchase"]
    session = visit.events.session[bought]
    assert (visit.sessions.person[session] < world.users).all()
    assert (visit.events.time[bought] > visit.login_at[session]).all()
