"""Percentile bootstrap of a mean: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13."""

import math
from dataclasses import dataclass

import numpy as np

from recsys_data.errors import UserError

# Counts of a multinomial that are held at once: 64 MB.
HELD = 8_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval it lies in with probability `level`; NaN where there was nothing to average."""

    mean: float
    low: float
    high: float
    level: float


def mean_interval(values: np.ndarray, *, level: float = 0.95, samples: int = 1_000, seed: int = 0) -> Interval:
    """The mean of `values` and its bootstrap interval; the order of the values does not matter.

    Args:
        values: float64, without NaN.
        level: of the interval, between 0 and 1.
        samples: how often the values are drawn again.
        seed: of the draws.

    Raises:
        UserError: the level or the number of samples makes no sense.
    """
    if not 0 < level < 1 or samples < 1:
        raise UserError(
            f"A bootstrap interval of level {level} from {samples} samples makes no sense. "
            "Expected a level between 0 and 1 and at least one sample."
        )
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, level)
    # Drawing n values with replacement is drawing how often each distinct value occurs: measures of ranked lists
    # have few distinct values, and their number, not that of the queries, is what each sample costs.
    distinct, counts = np.unique(values, return_counts=True)
    random = np.random.default_rng(seed)
    shares = counts / counts.sum()
    means = np.empty(samples)
    block = max(1, HELD // len(distinct))
    for first in range(0, samples, block):
        drawn = random.multinomial(len(values), shares, size=min(block, samples - first))
        means[first : first + block] = (drawn * distinct).sum(axis=1) / len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean(values), float(low), float(high), level)


def mean(values: np.ndarray) -> float:
    """The mean, correctly rounded and so independent of the order; NaN of nothing."""
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan
