"""How likely somebody looks at each position of a list, from impressions whose order was explored.

In the position-based model a click needs that the item is looked at, which depends on the position alone, and that it
attracts. Weighted by 1 / propensity, every position of a list shows the same items, so that click rates differ as the
chances to be looked at do (Joachims, Swaminathan and Schnabel, WSDM 2017). Long lists may attract more or less than
short ones: each length has a level of its own. Rare positions are noisy; `smoothed` is a curve through all of them, a
polynomial in the logarithm, of the degree up to three that Schwarz's criterion (Annals of Statistics 6, 1978) prefers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_data.errors import UserError

MOST_DEGREES = 3
STEPS, ENOUGH = 1000, 1e-12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PositionCurve:
    """Chances to be looked at, as multiples of that of position 1.

    Attributes:
        impressions: of each position, from 1, shape (P,).
        clicks: of each position, shape (P,).
        relative: the estimate of each position by itself, shape (P,); NaN without impressions.
        error: its standard error, of independent impressions, shape (P,).
        smoothed: the curve through all positions, shape (P,).
    """

    impressions: npt.NDArray[np.int64]
    clicks: Floats
    relative: Floats
    error: Floats
    smoothed: Floats


def position_curve(logged: Mapping[str, Any]) -> PositionCurve:
    """The curve of logged impressions.

    Args:
        logged: `list` (an integer or text of each list), `position` from 1, `reward` (1: clicked, 0: not) and
            `propensity` above 0, N values each. All impressions of a list are there, and every item of a shortlist has
            some chance at every position, as with exploration.

    Raises:
        UserError: columns do not fit each other, or fewer than three positions have clicks.

    >>> found = position_curve(
    ...     {
    ...         "list": [*range(10)] * 3,
    ...         "position": [1] * 10 + [2] * 10 + [3] * 10,
    ...         "reward": [1] * 8 + [0] * 2 + [1] * 4 + [0] * 6 + [1] * 2 + [0] * 8,
    ...         "propensity": [0.1] * 30,
    ...     }
    ... )
    >>> found.relative.round(6).tolist(), found.smoothed.round(6).tolist()
    ([1.0, 0.5, 0.25], [1.0, 0.5, 0.25])
    """
    position = np.asarray(logged["position"], np.int64)
    reward, propensity = (np.asarray(logged[name], np.float64) for name in ("reward", "propensity"))
    sizes = {len(position), len(reward), len(propensity), len(logged["list"])}
    if len(sizes) > 1 or not len(position) or position.min() < 1 or not (propensity > 0).all():
        raise UserError(
            "The impressions are not as expected: lists, positions from 1 on, rewards and propensities above 0, one of "
            "each for every impression."
        )
    of_list = np.unique(np.asarray(logged["list"]), return_inverse=True)[1]
    place, count = position - 1, int(position.max())
    length = np.zeros(of_list.max() + 1, np.int64)
    np.maximum.at(length, of_list, place)
    cell, shape = length[of_list] * count + place, (count, count)
    weight = 1 / propensity
    followed = _sums(cell, weight * reward, count * count).reshape(shape)
    shown = _sums(cell, weight, count * count).reshape(shape)
    chance = _chances(followed, shown)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_variance = _sums(place, weight**2 * reward, count) / followed.sum(axis=0) ** 2
        relative = chance / chance[0]
        error = relative * np.sqrt(log_variance + log_variance[0])
    error[0] = 0.0
    known = np.flatnonzero(relative > 0)
    if len(known) < 3:
        raise UserError(f"Only {len(known)} positions have clicks; expected three or more.")
    logs = _fitted(known, np.log(relative[known]), 1 / np.sqrt(log_variance[known]))(np.arange(count))
    return PositionCurve(
        impressions=np.bincount(place, minlength=count),
        clicks=_sums(place, reward, count),
        relative=relative,
        error=error,
        smoothed=np.exp(logs - logs[0]),
    )


def _sums(group: npt.NDArray[np.int64], values: Floats, count: int) -> Floats:
    return np.bincount(group, values, count).astype(np.float64)


def _fitted(place: npt.NDArray[np.int64], logs: Floats, weights: Floats) -> np.polynomial.Polynomial:
    """The polynomial through logarithms that have these inverse standard errors."""
    best, least = None, np.inf
    for degree in range(1, min(MOST_DEGREES, len(place) - 2) + 1):
        found = np.polynomial.Polynomial.fit(place, logs, degree, w=weights)
        criterion = ((weights * (logs - found(place))) ** 2).sum() + (degree + 1) * np.log(len(place))
        if best is None or criterion < least:
            best, least = found, criterion
    assert best is not None
    return best


def _chances(followed: Floats, shown: Floats) -> Floats:
    """The factors of positions in followed = shown * level of the length * chance of the position; NaN: not shown.

    Args:
        followed: weighted clicks by length of the list and position, shape (P, P).
        shown: weighted impressions, shape (P, P).
    """
    chance = found = np.ones(shown.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(STEPS):
            level = np.nan_to_num(followed.sum(axis=1) / (shown @ chance))
            # Lists of one position say nothing of others, but as much of their own level.
            found = np.nan_to_num(followed.sum(axis=0) / (level @ shown))
            if np.abs(found / found[0] - chance / chance[0]).max() < ENOUGH:
                break
            chance = found
    return np.where(shown.sum(axis=0) > 0, found, np.nan)
