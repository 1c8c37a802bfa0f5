"""The true value of a ranking policy: the expected clicks of recommended lists, in closed form.

A policy says for each list, as a probability, which item of the shortlist it puts at which position: an array of
shape (D, ranks, positions), whose columns sum to 1 up to the size of the shortlist. Because a click on an item
depends on its position and on nothing else in the list (`behaviour`), the expected clicks at a position are

    EXAMINATION[position] * sum over the items of P(item at position) * attraction(item)

The value of a policy is their sum over all lists and the positions that they show, divided by the number of those
positions: clicks per impression. `training.off_policy` estimates the same from the log.

    >>> from recsys_data.simulator.world import build
    >>> world = build(users=50, guests=10, items=200)
    >>> found = sample(world, seed=1, visits=200)
    >>> shuffled, ranked = (found.value(found.explored(found.decisions.score, share)) for share in (1.0, 0.0))
    >>> bool(shuffled < found.value(found.logging()) < ranked)
    True
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_data.simulator.rhythm import DAY
from recsys_data.simulator.traffic.behaviour import CLICK, CLICK_BY_AFFINITY, EXAMINATION, KIND, Visit, attraction
from recsys_data.simulator.traffic.lists import (
    EXPLORATION,
    LIST_KINDS,
    MODELS,
    MOST_SHOWN,
    SHORTLIST,
    VARIANTS,
    Decisions,
    Lists,
    fill,
    open_lists,
)
from recsys_data.simulator.traffic.sessions import GOALS, Bools, Floats, Sessions, draw
from recsys_data.simulator.world import World

START = 1_767_225_600_000_000  # 2026-01-01, microseconds
POSITIONS = np.arange(MOST_SHOWN)


@dataclass(frozen=True, slots=True)
class Ranking:
    """D recommended lists with what is true of them.

    Attributes:
        decisions: the lists and their shortlists.
        attraction: probability of a click on each item of the shortlist at position 1, shape (D, SHORTLIST).
    """

    decisions: Decisions
    attraction: Floats

    @classmethod
    def of(cls, sessions: Sessions, lists: Lists, decisions: Decisions) -> "Ranking":
        goal = sessions.goal[lists.session[decisions.list]]
        return cls(decisions, attraction(goal[:, None], decisions.affinity))

    def explored(self, score: Floats, exploration: float) -> Floats:
        """The policy that ranks by `score`, shape (D, SHORTLIST), but shuffles a share of the lists.

        Returns:
            probabilities, shape (D, SHORTLIST, MOST_SHOWN).
        """
        size = self.decisions.size[:, None, None]
        there = np.arange(SHORTLIST) < self.decisions.size[:, None]
        order = np.argsort(np.where(there, -score, np.inf), axis=1, kind="stable")
        position = np.argsort(order, axis=1, kind="stable")
        chance = exploration / size + (1 - exploration) * (position[:, :, None] == POSITIONS)
        return chance * (there[:, :, None] & (size > POSITIONS))

    def logging(self) -> Floats:
        """The policy that made the lists; shape (D, SHORTLIST, MOST_SHOWN)."""
        return self.explored(self.decisions.score, EXPLORATION)

    def clicks(self, policy: Floats) -> Floats:
        """Expected clicks of each list under a policy, shape (D,)."""
        shown = self.decisions.shown[:, None] > POSITIONS
        return np.einsum("drk,dr,dk->d", policy, self.attraction, shown * EXAMINATION)

    def value(self, policy: Floats) -> float:
        """Expected clicks per impression under a policy."""
        return float(self.clicks(policy).sum() / self.decisions.shown.sum())


def sample(world: World, seed: int, visits: int) -> Ranking:
    """The recommended lists of some visits within a week, without what happens in them."""
    rng = np.random.default_rng(seed)
    sessions = draw(world, rng, START, START + 7 * DAY, visits, 0.0)
    lists = open_lists(world, rng, sessions)
    return Ranking.of(sessions, lists, fill(world, rng, sessions, lists)[1])


def logged(visit: Visit, policy: Floats, predicted: Floats | None = None) -> pa.Table:
    """What was shown in recommended lists, as `training.off_policy` reads it; the cluster is the visit.

    Args:
        visit: visits and what happened in them.
        policy: the target policy, shape (D, SHORTLIST, MOST_SHOWN).
        predicted: a model's probability of a click on each item at position 1, shape (D, SHORTLIST); adds the
            columns for DR.
    """
    shown, decisions = visit.shown, visit.decisions
    of_list = np.full(len(visit.lists.kind), -1)
    of_list[decisions.list] = np.arange(len(decisions))
    at = np.flatnonzero(of_list[shown.list] >= 0)
    made, place = of_list[shown.list[at]], shown.position[at] - 1
    rank = (decisions.item[made] == shown.item[at][:, None]).argmax(axis=1)
    columns = {
        "recommendation_id": np.char.add("rec-", np.array(visit.lists.name)[shown.list[at]]),
        "position": shown.position[at],
        "reward": _clicked(visit)[at].astype(np.float64),
        "propensity": shown.propensity[at],
        "target_probability": policy[made, rank, place],
        "cluster_id": visit.lists.session[shown.list[at]],
    }
    if predicted is not None:
        columns["q_logged"] = EXAMINATION[place] * predicted[made, rank]
        columns["q_target"] = EXAMINATION[place] * np.einsum("nr,nr->n", policy[made, :, place], predicted[made])
    return pa.table(columns)


def _clicked(visit: Visit) -> Bools:
    """Whether each item shown was clicked there."""
    shown, events = visit.shown, visit.events
    clicks = events.kind == KIND["click"]
    width = MOST_SHOWN + 1
    return np.isin(shown.list * width + shown.position, events.list[clicks] * width + events.position[clicks])


def table(world: World, visit: Visit) -> pa.Table:
    """One row per recommended list and item of its shortlist: whatever an evaluation of another policy needs."""
    decisions, lists, sessions, people = visit.decisions, visit.lists, visit.sessions, world.people
    ranking = Ranking.of(sessions, lists, decisions)
    made, rank = np.nonzero(decisions.item >= 0)
    of = decisions.list
    person, slot = sessions.person[lists.session[of]], sessions.slot[lists.session[of]]
    each = {
        "recommendation_id": [f"rec-{lists.name[i]}" for i in of.tolist()],
        "list_id": [LIST_KINDS[kind] for kind in lists.kind[of].tolist()],
        "user_id": [people.user_id[i] or None for i in person.tolist()],
        "anonymous_id": [people.anonymous_id[i][j] for i, j in zip(person.tolist(), slot.tolist(), strict=True)],
        "model": [MODELS[i] for i in decisions.variant.tolist()],
        "variant": [VARIANTS[i] for i in decisions.variant.tolist()],
        "candidates": decisions.size.astype(np.int32),
        "shown": decisions.shown.astype(np.int32),
    }
    columns = {name: pa.array(values, _type(name)).take(pa.array(made)) for name, values in each.items()}
    return pa.table(
        columns
        | {
            "item_id": pa.array([world.items.item_id[i] for i in decisions.item[made, rank].tolist()], pa.string()),
            "rank": (rank + 1).astype(np.int32),
            "score": decisions.score[made, rank],
            "click_probability": ranking.attraction[made, rank],
        }
    )


def _type(name: str) -> pa.DataType:
    return pa.int32() if name in ("candidates", "shown") else pa.string()


@dataclass
class RankingTotals:
    """Running totals over the recommended lists of all visits that have begun.

    Attributes:
        lists: how many there are.
        impressions: positions that they show.
        clicks: expected, by policy.
        shown: impressions, by policy.
    """

    lists: int = 0
    impressions: int = 0
    clicks: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    shown: Counter[str] = field(default_factory=Counter)

    def add(self, visit: Visit) -> None:
        """Count the lists of `visit`."""
        ranking = Ranking.of(visit.sessions, visit.lists, visit.decisions)
        decisions = ranking.decisions
        self.lists += len(decisions)
        self.impressions += int(decisions.shown.sum())
        of_logging = ranking.logging()
        everywhere = np.ones(len(decisions), bool)
        policies = {
            "logging": (of_logging, everywhere),
            **{name: (of_logging, decisions.variant == i) for i, name in enumerate(VARIANTS)},
            "without_exploration": (ranking.explored(decisions.score, 0.0), everywhere),
            "random": (ranking.explored(decisions.score, 1.0), everywhere),
            "by_liking": (ranking.explored(decisions.affinity, 0.0), everywhere),
        }
        for name, (policy, chosen) in policies.items():
            self.clicks[name] += float(ranking.clicks(policy)[chosen].sum())
            self.shown[name] += int(decisions.shown[chosen].sum())

    def to_dict(self) -> dict[str, Any]:
        """The parameters of lists and clicks, and the true values of some policies, as plain JSON values."""
        return {
            "exploration": EXPLORATION,
            "examination": [round(float(chance), 6) for chance in EXAMINATION],
            "click_log_odds": dict(zip(GOALS, CLICK.tolist(), strict=True)),
            "click_log_odds_by_liking": CLICK_BY_AFFINITY,
            "lists": self.lists,
            "impressions": self.impressions,
            "clicks_per_impression": {name: self.clicks[name] / of for name, of in self.shown.items() if of},
        }
