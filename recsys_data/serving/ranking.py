"""Orders candidates: lists of several sources become one, by reciprocal rank fusion.

Scores of different sources do not compare, but their ranks do (Cormack et al., SIGIR 2009). A ranker of features takes
the place of `fuse` once features are at hand.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from recsys_data.serving.answers import MAX_IDS

SMOOTHING = 60
WEIGHTS = tuple(1 / (SMOOTHING + rank) for rank in range(1, MAX_IDS + 1))


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


def fuse(sources: Iterable[Candidates]) -> Iterator[Ranked]:
    """The items of all sources by the sum of 1 / (60 + rank), best first; equal ones by the order of the sources.

    >>> [(one.item_id, one.reason) for one in fuse([Candidates("ab", "x"), Candidates("bc", "y")])]
    [('b', 'y'), ('a', 'x'), ('c', 'y')]
    """
    scores: dict[str, float] = {}
    best: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for items, reason in sources:
        for item, weight in zip(items, WEIGHTS, strict=False):
            if item not in scores:
                scores[item] = best[item] = weight
                reasons[item] = reason
            else:
                scores[item] += weight
                if weight > best[item]:
                    best[item], reasons[item] = weight, reason
    # Most are never asked for.
    for item in sorted(scores, key=scores.__getitem__, reverse=True):
        yield Ranked(item, scores[item], reasons[item])
