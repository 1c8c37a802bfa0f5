"""Orders candidates: lists of several sources become one, by reciprocal rank fusion.

Scores of different sources do not compare, but their ranks do (Cormack et al., SIGIR 2009). A ranker of features takes
the place of `fuse` once features are at hand.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

SMOOTHING = 60


class Candidates(NamedTuple):
    """Items of one source, best first.

    Attributes:
        items: without repetition.
        reason: why they are there.
    """

    items: Sequence[str]
    reason: str


class Ranked(NamedTuple):
    """An item with its score and the source that ranked it highest."""

    item_id: str
    score: float
    reason: str


def fuse(sources: Iterable[Candidates]) -> list[Ranked]:
    """The items of all sources by the sum of 1 / (60 + rank), best first; equal ones by the order of the sources.

    >>> [(one.item_id, one.reason) for one in fuse([Candidates("ab", "x"), Candidates("bc", "y")])]
    [('b', 'y'), ('a', 'x'), ('c', 'y')]
    """
    scores: dict[str, float] = {}
    best: dict[str, tuple[int, str]] = {}
    for items, reason in sources:
        for rank, item in enumerate(items, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (SMOOTHING + rank)
            if item not in best or rank < best[item][0]:
                best[item] = (rank, reason)
    ordered = sorted(scores.items(), key=lambda one: -one[1])
    return [Ranked(item, score, best[item][1]) for item, score in ordered]
