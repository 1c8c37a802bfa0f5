"""Exploration with known propensities: the order of the shortlist is drawn, in one of two ways.

Uniform: with probability epsilon the shortlist is shown in a uniformly random order. The item of rank r is at position
k with probability epsilon / n, plus 1 - epsilon where r = k; n is the length of the shortlist.

Boltzmann: the next item is drawn among those that are left, with probabilities in proportion to exp(u / temperature),
where u goes from 0 for the best score of the shortlist to -1 for the worst (a Plackett-Luce model). The same as sorting
u / temperature + Gumbel noise. A share of orders can be uniform beside it.

An item's propensity at a position is the probability over all orders: off-policy estimators weight each impression by
itself, whatever else is shown. With exponential clocks of rates exp(u / temperature), item i is at position k if k - 1
others ring before it: an integral over the time at which it rings, of smooth functions, whose sum over a grid of log
times is right to a millionth of itself.

The same answer is drawn again from the same recommendation id.
"""

import math
import random
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

# Grid of log times, in which the sum of values at equal steps converges faster than any power of the step.
STEP = 0.4
# Before and after a clock's own time, in logarithms: what lies outside does not count.
BEFORE, AFTER = 20.0, 3.6


class Boltzmann(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exploration by scores.

    Attributes:
        temperature: the best item of a shortlist is exp(1 / temperature) times as likely to be first as the worst.
        uniform: probability of a uniformly random order instead; it keeps propensities above uniform / n.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0.05, le=100)]
    uniform: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


Exploration = Annotated[float, msgspec.Meta(ge=0, le=1)] | Boltzmann


def explore(scores: Sequence[float], how: Exploration, seed: str) -> list[int]:
    """The rank, from 0, that is shown at each position.

    Args:
        scores: of the shortlist, best first.
        how: probability of a random order, or Boltzmann.
        seed: of the draw, the recommendation id.

    >>> explore([3.0, 2.0, 1.0], 0.0, "a")
    [0, 1, 2]
    """
    order = list(range(len(scores)))
    uniform = how.uniform if isinstance(how, Boltzmann) else how
    draw = random.Random(seed)
    if uniform > 0 and draw.random() < uniform:
        draw.shuffle(order)
        return order
    if not isinstance(how, Boltzmann):
        return order
    # 1 - random() is never 0.
    noise = [-math.log(-math.log1p(-draw.random()) or math.ulp(0.0)) for _ in order]
    keys = [one + more for one, more in zip(_log_rates(scores, how), noise, strict=True)]
    return sorted(order, key=lambda rank: -keys[rank])


def propensities(scores: Sequence[float], order: Sequence[int], how: Exploration, first: int = 0) -> list[float]:
    """The probability of the rank that is shown at each position.

    Args:
        scores: of the shortlist, best first.
        order: the rank at each position from `first` on.
        how: as for `explore`.
        first: the first of the positions, from 0.

    >>> [round(one, 6) for one in propensities([4, 3, 2, 1], [0, 2, 1, 3], 0.2)]
    [0.85, 0.05, 0.05, 0.85]
    >>> [round(one, 6) for one in propensities([2.0, 1.0], [1, 0], Boltzmann(1 / math.log(3)))]
    [0.25, 0.25]
    """
    if not order:
        return []
    if isinstance(how, Boltzmann):
        places = np.arange(first, first + len(order))
        by_scores = _at_places(_log_rates(scores, how), np.array(order), places)
        return (how.uniform / len(scores) + (1 - how.uniform) * by_scores).tolist()
    random_place = how / len(scores)
    return [random_place + (1 - how) * (rank == position) for position, rank in enumerate(order, first)]


def _log_rates(scores: Sequence[float], how: Boltzmann) -> list[float]:
    most, least = max(scores, default=0.0), min(scores, default=0.0)
    spread = (most - least) * how.temperature
    return [(one - most) / spread if spread > 0 else 0.0 for one in scores]


def _at_places(log_rates: Sequence[float], ranks: np.ndarray, places: np.ndarray) -> np.ndarray:
    """P(the item of each rank is at its place), places from 0."""
    rates = np.array(log_rates)
    # All rates together are at most n times the best one, which is exp(0).
    before = BEFORE + math.log(len(rates)) - float(rates.min())
    grid = np.arange(-before, AFTER, STEP)
    own = grid[None, :]
    # Shape (items, times): the density of the item's own clock in log time.
    density = np.exp(own - np.exp(own)) * STEP
    times = own - rates[ranks][:, None]
    # Shape (items, times, places): that so many others rang before.
    rang = np.zeros((len(ranks), len(grid), int(places.max()) + 1))
    rang[:, :, 0] = 1.0
    for other, rate in enumerate(rates):
        chance = -np.expm1(-np.exp(np.minimum(times + rate, 700.0)))
        chance[ranks == other] = 0.0
        rest = 1.0 - chance
        rang[:, :, 1:] = rang[:, :, 1:] * rest[:, :, None] + rang[:, :, :-1] * chance[:, :, None]
        rang[:, :, 0] *= rest
    there = rang[np.arange(len(ranks)), :, places]
    return np.minimum((density * there).sum(axis=1), 1.0)
