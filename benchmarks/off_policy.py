"""Whether off-policy intervals hold what they promise: how often they cover the true value of a policy.

    python -m benchmarks.off_policy              # --runs 1000 --visits 250 --confidence 0.95

Each run simulates visits to the shop, evaluates five policies on the logged impressions of its recommended lists, and
compares the intervals with the true values (`simulator.ranking_truth`). The reward model of DR is wrong on purpose.
Prints a table and ends with 1 if an estimator covers a policy's value in a share of runs that is further than three
standard errors and one percentage point from what was promised.
"""

import argparse
import math
import sys
import time
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from benchmarks.soak.report import print_table
from recsys_data.simulator.ranking_truth import START, Ranking, logged, sample
from recsys_data.simulator.rhythm import DAY
from recsys_data.simulator.traffic.behaviour import Visit, attraction, behave
from recsys_data.simulator.traffic.sessions import draw
from recsys_data.simulator.world import World, build
from recsys_data.training.off_policy import Evaluation, evaluate

ESTIMATORS = ("ips", "snips", "dr")
MANY = 60_000  # visits that the true values are taken from
MARGIN = 0.01

Floats = npt.NDArray[np.float64]


def policies(ranking: Ranking) -> dict[str, Floats]:
    """By name; each of shape (D, SHORTLIST, MOST_SHOWN)."""
    liking = ranking.decisions.affinity
    return {
        "by liking, half shuffled": ranking.explored(liking, 0.5),
        "by liking, a fifth shuffled": ranking.explored(liking, 0.2),
        "by liking": ranking.explored(liking, 0.0),
        "the model without exploration": ranking.explored(ranking.decisions.score, 0.0),
        "random": ranking.explored(liking, 1.0),
    }


def simulated(world: World, seed: int, visits: int) -> Visit:
    """Visits of a week, and what happens in them."""
    rng = np.random.default_rng([17, seed])
    return behave(world, rng, draw(world, rng, START, START + 7 * DAY, visits, 0.0))


def evaluations(visit: Visit, seed: int, confidence: float) -> dict[str, Evaluation]:
    """Every policy, from what was logged."""
    ranking = Ranking.of(visit.sessions, visit.lists, visit.decisions)
    everybody_browses = np.zeros((len(visit.decisions), 1), np.int64)
    guessed = attraction(everybody_browses, 0.7 * visit.decisions.affinity)
    return {
        name: evaluate(logged(visit, policy, guessed), seed=seed, confidence=confidence)
        for name, policy in policies(ranking).items()
    }


def main() -> int:
    """Simulate, evaluate, and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.off_policy", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--visits", type=int, default=250, help="of each run; about 1.4 recommended lists each")
    parser.add_argument("--confidence", type=float, default=0.95)
    options = parser.parse_args()
    begun = time.monotonic()
    world = build()
    many = sample(world, 0, MANY)
    truth = {name: many.value(policy) for name, policy in policies(many).items()}
    covered, widths, sizes = defaultdict(int), defaultdict(list), defaultdict(list)
    for seed in range(options.runs):
        for name, found in evaluations(simulated(world, seed, options.visits), seed, options.confidence).items():
            sizes[name].append(found.effective_sample_size)
            for estimator in ESTIMATORS:
                one = found.estimates[estimator]
                covered[name, estimator] += one.low <= truth[name] <= one.high
                widths[name, estimator].append(one.high - one.low)
    head = ("policy", "true value", "effective rows", *(f"{name}: covered, width" for name in ESTIMATORS))
    rows = []
    for name, value in truth.items():
        cells = [f"{covered[name, e] / options.runs:.1%}, {np.mean(widths[name, e]):.3f}" for e in ESTIMATORS]
        rows.append([name, f"{value:.4f}", f"{np.mean(sizes[name]):,.0f}", *cells])
    print_table(head, rows)
    sys.stdout.write(f"{options.runs:,} runs in {time.monotonic() - begun:,.0f} s\n")
    allowed = MARGIN + 3 * math.sqrt(options.confidence * (1 - options.confidence) / options.runs)
    wrong = [key for key, count in covered.items() if abs(count / options.runs - options.confidence) > allowed]
    for name, estimator in wrong:
        sys.stdout.write(f"FAILED: {estimator} of the policy {name}: more than {allowed:.1%} from what was promised\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
