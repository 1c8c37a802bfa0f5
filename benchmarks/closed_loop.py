"""The closed loop against planted truth: what serving logs, and what the platform says about it.

    python -m benchmarks.closed_loop             # --runs 100 --visits 3000 --curve-visits 600000

Models learn from a week of the simulated shop (popular, EASE as champion, item-kNN as the policy that is not served).
Each run is another week: visitors are assigned to the variants `popular` and `champion` by serving's hash, the
shortlist of each recommended list is ordered by the variant's model and explored by serving's code, and what was shown
becomes serving's impressions. Visitors click as planted. From the log come, by the functions behind `recsys-data
recommendations --uplift` and by `training.off_policy` and `training.position_curve`:

- the click rate of each variant and the uplift of the champion,
- the value of item-kNN, which was never shown, by SNIPS and DR; their intervals are over visitors,
- how likely each position is looked at, from lists in a random order.

Compared are 95 % intervals with the true values, in closed form over many visits. Ends with 1 if an interval covers the
truth in fewer than 95 of 100 runs by more than chance allows (three standard errors), or if the curve is off by 2 %.
"""

import argparse
import math
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.soak.report import print_table
from recsys_data.serving.answers import Answer, Item, Request
from recsys_data.serving.exploration import explore, propensities
from recsys_data.serving.log import impressions
from recsys_data.serving.outcomes import Share, outcomes_of
from recsys_data.serving.scenarios.declared import Scenario, Scenarios, Variant
from recsys_data.serving.uplift import uplifts_of
from recsys_data.simulator.ranking_truth import START, Ranking
from recsys_data.simulator.rhythm import DAY
from recsys_data.simulator.traffic.behaviour import EXAMINATION, KIND, behave
from recsys_data.simulator.traffic.lists import MOST_SHOWN, fill, open_lists
from recsys_data.simulator.traffic.sessions import Sessions, draw
from recsys_data.simulator.world import World, build
from recsys_data.training.baselines import MODELS
from recsys_data.training.off_policy import evaluate
from recsys_data.training.position_curve import PositionCurve, position_curve

POPULAR, CHAMPION, UNSEEN = "popular", "champion", "item-kNN, not shown"
LEARNED = {POPULAR: "popular", CHAMPION: "ease", UNSEEN: "item_knn"}
WEEK = 7 * DAY
LEARNING_VISITS = 60_000
TRUTH_VISITS = 120_000
BLOCK = 60_000
CONFIDENCE = 0.95
MOST_OFF = 0.02

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Loop:
    """The shop with what was learned of it.

    Attributes:
        world: the shop.
        scores: model -> score of each item for each person, shape (people, items).
        scenarios: with the variants.
        exploration: probability of a random order.
        attraction: the mean chance of a click at position 1, learned; the reward model of DR.
    """

    world: World
    scores: dict[str, Floats]
    scenarios: Scenarios
    exploration: float
    attraction: float

    def policy(self, ranking: Ranking, person: Ints, model: str) -> Floats:
        """Probabilities of a model's policy with exploration, shape (D, SHORTLIST, MOST_SHOWN)."""
        items = np.maximum(ranking.decisions.item, 0)
        return ranking.explored(self.scores[model][person[:, None], items], self.exploration)


@dataclass(frozen=True)
class Week:
    """Recommended lists of a week, before they are ordered; D lists.

    Attributes:
        person: whose each list is, shape (D,).
        session: of which visit, shape (D,).
        ranking: the lists, with what is true of them.
    """

    person: Ints
    session: Ints
    ranking: Ranking

    @classmethod
    def drawn(cls, world: World, seed: tuple[int, ...], visits: int) -> "Week":
        rng = np.random.default_rng(seed)
        sessions = draw(world, rng, START + WEEK, START + 2 * WEEK, visits, 0.0)
        return cls.of(world, rng, sessions)

    @classmethod
    def of(cls, world: World, rng: np.random.Generator, sessions: Sessions) -> "Week":
        lists = open_lists(world, rng, sessions)
        decisions = fill(world, rng, sessions, lists)[1]
        session = lists.session[decisions.list]
        return cls(sessions.person[session], session, Ranking.of(sessions, lists, decisions))


def learned(world: World, exploration: float) -> Loop:
    """Models of a week that the shop ordered by its own means."""
    rng = np.random.default_rng([29, 0])
    visit = behave(world, rng, draw(world, rng, START, START + WEEK, LEARNING_VISITS, 0.0))
    clicks = visit.events.only(visit.events.kind == KIND["click"])
    interactions = pa.table(
        {
            "user_id": [visitor(one) for one in visit.sessions.person[clicks.session].tolist()],
            "item_id": pa.array(world.items.item_id).take(pa.array(clicks.item)),
            "timestamp": pa.array(clicks.time, pa.timestamp("us", "UTC")),
            "weight": np.ones(len(clicks)),
        }
    )
    scores = {name: scored(world, MODELS[kind]().fit(interactions)) for name, kind in LEARNED.items()}
    variants: dict[str, float | Variant] = {POPULAR: Variant(0.5, candidates=("popular",)), CHAMPION: Variant(0.5)}
    scenario = Scenario(name="home", exploration=exploration, variants=variants)
    looked_at = EXAMINATION[visit.shown.position - 1].sum()
    return Loop(world, scores, Scenarios({"home": scenario}), exploration, float(len(clicks) / looked_at))


def scored(world: World, model: Any) -> Floats:
    """What a model scores each item for each person, shape (people, items); unknown items come last."""
    people = [visitor(one) for one in range(len(world.people))]
    found = model.recommend(people, len(world.items.item_id), exclude_seen=False)
    row = pc.index_in(found["query_id"], pa.array(people)).to_numpy()
    column = pc.index_in(found["item_id"], pa.array(world.items.item_id)).to_numpy()
    scores = np.full((len(people), len(world.items.item_id)), -1e9)
    scores[row, column] = -found["rank"].to_numpy()
    return scores


def visitor(person: int, run: int | None = None) -> str:
    """How a person is known, in each run by another name, and so in another variant."""
    return f"v{person}" if run is None else f"run{run}-v{person}"


def truth(loop: Loop) -> dict[str, float]:
    """The true clicks per impression of each policy, if all visitors got it."""
    clicks, shown = defaultdict(float), 0
    for block in range(TRUTH_VISITS // BLOCK):
        week = Week.drawn(loop.world, (31, block), BLOCK)
        shown += int(week.ranking.decisions.shown.sum())
        for name in LEARNED:
            clicks[name] += float(week.ranking.clicks(loop.policy(week.ranking, week.person, name)).sum())
    return {name: count / shown for name, count in clicks.items()}


def served(loop: Loop, run: int, visits: int) -> tuple[pa.Table, dict[str, Any]]:
    """A week of answers and clicks: the events of the log, and the same for off-policy evaluation of `UNSEEN`."""
    week = Week.drawn(loop.world, (37, run), visits)
    rng = np.random.default_rng([41, run])
    decisions, target = week.ranking.decisions, loop.policy(week.ranking, week.person, UNSEEN)
    rows: list[dict[str, Any]] = []
    logged = defaultdict(list)
    for number, person in enumerate(week.person.tolist()):
        name = visitor(person, run)
        variant = loop.scenarios.choose("home", name).variant or ""
        size, shown = int(decisions.size[number]), int(decisions.shown[number])
        items = decisions.item[number, :size]
        best_first = np.argsort(-loop.scores[variant][person, items], kind="stable")
        recommendation_id = f"{run}-{number}"
        ranks = [-float(rank) for rank in range(size)]
        order = explore(ranks, loop.exploration, recommendation_id)
        chances = propensities(ranks, order, loop.exploration)
        answer = Answer(
            recommendation_id=recommendation_id,
            model=variant,
            variant=variant,
            scenario="home",
            fallback=False,
            items=tuple(
                Item(
                    item_id=loop.world.items.item_id[items[best_first[rank]]],
                    position=place + 1,
                    score=1.0 / (1 + rank),
                    propensity=chances[place],
                    reason="model",
                )
                for place, rank in enumerate(order[:shown])
            ),
        )
        at = datetime(2026, 1, 8, tzinfo=UTC) + timedelta(seconds=number)
        request = Request(user_id=name, session_id=f"{run}-s{week.session[number]}")
        events = [msgspec.json.decode(line) for line in impressions(request, answer, at)]
        place = np.arange(shown)
        chosen = best_first[order[:shown]]
        clicked = rng.random(shown) < EXAMINATION[place] * week.ranking.attraction[number, chosen]
        rows += events
        rows += [event | {"type": "click"} for event, follows in zip(events, clicked.tolist(), strict=True) if follows]
        logged["position"] += (place + 1).tolist()
        logged["reward"] += clicked.astype(float).tolist()
        logged["propensity"] += chances[:shown]
        logged["target_probability"] += target[number, chosen, place].tolist()
        logged["cluster_id"] += [name] * shown
        logged["q_logged"] += (EXAMINATION[place] * loop.attraction).tolist()
    # The reward model knows positions, but nothing of items: its mean under any policy is the same.
    logged["q_target"] = logged["q_logged"]
    columns = ("type", "user_id", "session_id", "item_id", "recommendation_id", "list_id", "model", "variant")
    events = pa.table({name: [row[name] for row in rows] for name in columns})
    return (
        events.append_column("anonymous_id", pa.nulls(len(rows), pa.string()))
        .append_column("value", pa.nulls(len(rows), pa.float64()))
        .append_column("event_ts", pa.array([datetime(2026, 1, 8, tzinfo=UTC)] * len(rows))),
        logged,
    )


def intervals(loop: Loop, run: int, visits: int) -> dict[str, Share]:
    """What the platform says of a run."""
    events, logged = served(loop, run, visits)
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("interactions", events)
        rates = {f"click rate of {one.variant}": one.click_rate for one in outcomes_of(connection)}
        clicks = next(one for one in uplifts_of(connection, baseline=POPULAR) if one.measure == "clicked")
    if clicks.relative is None:
        raise RuntimeError("A variant got no clicks; simulate more visits.")
    found = evaluate(logged, seed=run, confidence=CONFIDENCE).estimates
    of_unseen = {
        f"{UNSEEN}: {name.upper()}": Share(found[name].value, found[name].low, found[name].high)
        for name in ("snips", "dr")
    }
    return rates | {"uplift, difference": clicks.difference, "uplift, relative": clicks.relative} | of_unseen


def expected(true: dict[str, float]) -> dict[str, float]:
    """The true values of `intervals`."""
    return {
        f"click rate of {CHAMPION}": true[CHAMPION],
        f"click rate of {POPULAR}": true[POPULAR],
        "uplift, difference": true[CHAMPION] - true[POPULAR],
        "uplift, relative": true[CHAMPION] / true[POPULAR] - 1,
        f"{UNSEEN}: SNIPS": true[UNSEEN],
        f"{UNSEEN}: DR": true[UNSEEN],
    }


def curve(world: World, visits: int) -> PositionCurve:
    """The curve from lists in a random order."""
    parts: dict[str, list[Any]] = {"list": [], "position": [], "reward": [], "propensity": []}
    for block in range(max(1, visits // BLOCK)):
        week = Week.drawn(world, (43, block), min(visits, BLOCK))
        rng = np.random.default_rng([47, block])
        decisions = week.ranking.decisions
        keys = rng.random(decisions.item.shape)
        keys[np.arange(keys.shape[1]) >= decisions.size[:, None]] = np.inf
        order = np.argsort(keys, axis=1)
        row, place = np.nonzero(np.arange(MOST_SHOWN) < decisions.shown[:, None])
        chance = EXAMINATION[place] * week.ranking.attraction[row, order[row, place]]
        parts["list"].append(row + block * 10 * BLOCK)
        parts["position"].append(place + 1)
        parts["reward"].append(rng.random(len(row)) < chance)
        parts["propensity"].append(1 / decisions.size[row])
    return position_curve({name: np.concatenate(found) for name, found in parts.items()})


def main() -> int:
    """Learn, serve, estimate, and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_loop", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--visits", type=int, default=3000, help="of each run; about 1.4 recommended lists each")
    parser.add_argument("--curve-visits", type=int, default=600_000)
    parser.add_argument("--exploration", type=float, default=0.3)
    options = parser.parse_args()
    begun = time.monotonic()
    loop = learned(build(users=6000, guests=2000, items=500), options.exploration)
    true = expected(truth(loop))
    covered: Counter[str] = Counter()
    values, widths = defaultdict(list), defaultdict(list)
    for run in range(options.runs):
        for name, share in intervals(loop, run, options.visits).items():
            covered[name] += share.low <= true[name] <= share.high
            values[name].append(share.value)
            widths[name].append(share.high - share.low)
    rows = [
        [name, f"{of:.4f}", f"{np.mean(values[name]):.4f}", f"{np.mean(widths[name]):.4f}", f"{covered[name]}"]
        for name, of in true.items()
    ]
    print_table(("estimate", "true value", "mean estimate", "mean width", f"covered in {options.runs} runs"), rows)
    found = curve(loop.world, options.curve_visits)
    off = np.abs(found.smoothed / EXAMINATION[: len(found.smoothed)] - 1)
    rows = [
        [str(place + 1), f"{EXAMINATION[place]:.4f}", f"{found.relative[place]:.4f}", f"{found.error[place]:.4f}"]
        + [f"{found.smoothed[place]:.4f}", f"{off[place]:.2%}", f"{found.clicks[place]:,.0f}"]
        for place in range(len(off))
    ]
    print_table(("position", "true", "by itself", "error", "smoothed", "off by", "clicks"), rows)
    sys.stdout.write(f"In all {time.monotonic() - begun:,.0f} s\n")
    least = options.runs * CONFIDENCE - 3 * math.sqrt(options.runs * CONFIDENCE * (1 - CONFIDENCE))
    failed = [f"{name} is covered in {covered[name]} runs of {options.runs}" for name in true if covered[name] < least]
    if off.max() > MOST_OFF:
        failed.append(f"the curve is off by {off.max():.1%}")
    for one in failed:
        sys.stdout.write(f"FAILED: {one}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
