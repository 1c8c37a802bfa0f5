"""Orders candidates: lists of several sources become one, by reciprocal rank fusion.

Scores of different sources do not compare, but their ranks do (Cormack et al., SIGIR 2009). What a ranker says of the
first of them puts those in another order.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.serving.answers import MAX_IDS

if TYPE_CHECKING:
    from recsys_data.serving.rankers import Scores

SMOOTHING = 60
# Beyond it exp overflows.
MOST = 700.0
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


def by_scores(candidates: Iterable[Ranked], scores: "Scores | None") -> Iterator[Ranked]:
    """Candidates in the order of a ranker's scores, which become probabilities; those without one follow."""
    if scores is None:
        yield from candidates
        return
    listed = list(candidates)
    said = scores.scores
    for one in sorted((one for one in listed if one.item_id in said), key=lambda one: -said[one.item_id]):
        yield one._replace(score=1 / (1 + math.exp(-max(-MOST, said[one.item_id]))))
    for one in listed:
        if one.item_id not in said:
            yield one._replace(score=0.0)
