"""Exploration with a known propensity: with probability epsilon, the shortlist is shown in a uniformly random order.

The item of rank r is at position k with probability epsilon / n, plus 1 - epsilon where r = k; n is the length of the
shortlist. The same answer is drawn again from the same recommendation id.
"""

import random
from collections.abc import Sequence


def explore(count: int, epsilon: float, seed: str) -> list[int]:
    """The rank, from 0, that is shown at each position.

    Args:
        count: length of the shortlist.
        epsilon: probability of a random order.
        seed: of the draw, the recommendation id.

    >>> explore(3, 0.0, "a")
    [0, 1, 2]
    """
    order = list(range(count))
    if epsilon > 0:
        draw = random.Random(seed)
        if draw.random() < epsilon:
            draw.shuffle(order)
    return order


def propensities(order: Sequence[int], epsilon: float) -> list[float]:
    """The probability of the rank that is shown at each position.

    >>> [round(one, 6) for one in propensities([0, 2, 1, 3], 0.2)]
    [0.85, 0.05, 0.05, 0.85]
    """
    if not order:
        return []
    random_place = epsilon / len(order)
    return [random_place + (1 - epsilon) * (rank == position) for position, rank in enumerate(order)]
