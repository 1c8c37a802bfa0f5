"""What is shown: the lists that each session opens, and the items in them.

The home page and "for you" are recommended: their items are chosen by liking, with noise. "Similar" lists,
search results and category pages take items of one category, mostly the one that the visitor came for.
"""

from dataclasses import dataclass

import numpy as np

from recsys_data.simulator.traffic.sessions import BROWSE, BUY, COMPARE, GIFT, Floats, Ints, Sessions, pick
from recsys_data.simulator.world import World

LIST_KINDS = ("home", "search", "category", "for_you", "similar")
HOME, SEARCH, CATEGORY, FOR_YOU, SIMILAR = range(5)
RECOMMENDED = np.array([True, False, False, True, True])
FROM_CATEGORY = np.array([False, True, True, False, True])
FIRST_KIND = np.array([[0.52, 0.33, 0.15, 0.0, 0.0]])
NEXT_KIND = np.array([[0.06, 0.38, 0.21, 0.19, 0.16]])
RANKED_BY_LIKING = np.array([0.8, 0.25, 0.0, 1.3, 0.8])

CANDIDATES = 24
MOST_SHOWN = 12
MORE_LISTS = {BROWSE: 2.0, BUY: 1.9, COMPARE: 3.1, GIFT: 2.4}


@dataclass(frozen=True, slots=True)
class Lists:
    """L lists (rows of a page, or pages of results), by session and in the order they are opened; arrays of shape (L,).

    Attributes:
        session: index of the session.
        number: 0 for the first list of its session.
        kind: index into `LIST_KINDS`.
        category: what a search, category page or "similar" list is about.
    """

    session: Ints
    number: Ints
    kind: Ints
    category: Ints


@dataclass(frozen=True, slots=True)
class Shown:
    """I items shown, by list and position; arrays of shape (I,).

    Attributes:
        list: index of the list.
        item: index of the item.
        position: rank in the list, from 1.
        affinity: how much the visitor likes it.
    """

    list: Ints
    item: Ints
    position: Ints
    affinity: Floats


def running(values: Ints, group: Ints) -> Ints:
    """Sum of the earlier values of the same group; groups are contiguous.

    >>> running(np.array([5, 1, 2, 7]), np.array([0, 0, 0, 4])).tolist()
    [0, 5, 6, 0]
    """
    before = np.cumsum(values) - values
    first = np.ones(len(group), bool)
    first[1:] = group[1:] != group[:-1]
    return before - before[first][np.cumsum(first) - 1]


def _intents(world: World, rng: np.random.Generator, sessions: Sessions) -> Ints:
    """Two categories per session, shape (S, 2): by taste, or nearly anything when it is a gift."""
    weight = np.where(sessions.goal == GIFT, 0.4, 2.2)[:, None]
    liking = weight * (world.people.taste[sessions.person] @ world.categories.factors.T)
    noise = rng.gumbel(size=(2, *liking.shape))
    return np.stack([(liking + draw).argmax(axis=1) for draw in noise], axis=1)


def open_lists(world: World, rng: np.random.Generator, sessions: Sessions) -> Lists:
    """Draw the lists of each session."""
    mean = np.array([MORE_LISTS[goal] for goal in range(len(MORE_LISTS))])[sessions.goal]
    count = 1 + np.minimum(rng.poisson(mean), 9)
    session = np.repeat(np.arange(len(sessions)), count)
    number = running(np.ones(len(session), np.int64), session)
    size = len(session)
    first = pick(rng, np.repeat(FIRST_KIND, size, axis=0))
    later = pick(rng, np.repeat(NEXT_KIND, size, axis=0))
    intent = _intents(world, rng, sessions)[session, (rng.random(size) > 0.78) * 1]
    return Lists(session, number, np.where(number == 0, first, later), intent)


def _candidates(world: World, rng: np.random.Generator, lists: Lists) -> Ints:
    """Items by popularity from the whole catalogue or from the list's category, shape (L, CANDIDATES)."""
    items = world.items
    edges = np.concatenate([[0.0], np.cumsum(items.popularity)])
    bounds = np.searchsorted(items.category, np.arange(len(world.categories.path) + 1))
    narrow = FROM_CATEGORY[lists.kind]
    low = np.where(narrow, edges[bounds[lists.category]], 0.0)[:, None]
    high = np.where(narrow, edges[bounds[lists.category + 1]], edges[-1])[:, None]
    at = low + (high - low) * rng.random((len(lists.kind), CANDIDATES))
    return np.minimum(np.searchsorted(edges, at, side="right") - 1, len(items.item_id) - 1)


def fill(world: World, rng: np.random.Generator, sessions: Sessions, lists: Lists) -> Shown:
    """Choose what each list shows, without showing an item twice in one list."""
    candidates = np.sort(_candidates(world, rng, lists), axis=1)
    person = sessions.person[lists.session][:, None]
    affinity = world.affinity(person, candidates)
    score = RANKED_BY_LIKING[lists.kind][:, None] * affinity + rng.gumbel(size=candidates.shape)
    score[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -np.inf
    best = np.argsort(-score, axis=1)[:, :MOST_SHOWN]
    shown = np.clip(rng.poisson(7.0, size=len(best)), 3, MOST_SHOWN)
    seen = (np.arange(MOST_SHOWN) < shown[:, None]) & (np.take_along_axis(score, best, axis=1) > -np.inf)
    row, column = np.nonzero(seen)
    chosen = best[row, column]
    return Shown(row, candidates[row, chosen], column + 1, affinity[row, chosen])
