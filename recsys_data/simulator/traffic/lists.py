"""What is shown: the lists that each session opens, and the items in them.

Search results and category pages take items of one category, mostly the one that the visitor came for.
The home page, "for you" and "similar" are recommended (the latter from one category), by the logging policy:
- A model scores the candidates: liking times a weight, plus an error of its own. The variant of the visitor's
  experiment says which model; each person always gets the same one.
- The SHORTLIST best, n of them, are ranked by that score. A list shows the first of them; how many does not depend
  on what they are.
- With probability EXPLORATION the n are shown in a uniformly random order instead. The item of rank r is therefore
  at position k with probability EXPLORATION / n, plus 1 - EXPLORATION where r = k: its `propensity`, exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.epochs import hash_noise
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
SHORTLIST = MOST_SHOWN = 12
EXPLORATION = 0.2
VARIANTS = ("control", "treatment")
MODELS = ("storefront-1", "storefront-2")  # by variant
MODEL_WEIGHTS = np.array([1.0, 1.5])  # the second model sees liking better
MORE_LISTS = {BROWSE: 2.0, BUY: 1.9, COMPARE: 3.1, GIFT: 2.4}


@dataclass(frozen=True, slots=True)
class Lists:
    """L lists (rows of a page, or pages of results), by session and in the order they are opened; arrays of shape (L,).

    Attributes:
        session: index of the session.
        number: 0 for the first list of its session.
        kind: index into `LIST_KINDS`.
        category: what a search, category page or "similar" list is about.
        name: 12 hexadecimal digits, the unique part of its id.
    """

    session: Ints
    number: Ints
    kind: Ints
    category: Ints
    name: list[str]


@dataclass(frozen=True, slots=True)
class Shown:
    """I items shown, by list and position; arrays of shape (I,).

    Attributes:
        list: index of the list.
        item: index of the item.
        position: place in the list, from 1.
        affinity: how much the visitor likes it.
        score: of the model that ranked it, NaN where the list is not recommended.
        propensity: probability of this item at this position, NaN where the list is not recommended.
    """

    list: Ints
    item: Ints
    position: Ints
    affinity: Floats
    score: Floats
    propensity: Floats


@dataclass(frozen=True, slots=True)
class Decisions:
    """D recommended lists, and the shortlist that each was made from.

    Attributes:
        list: index of the list, shape (D,).
        variant: index into `VARIANTS` and `MODELS`, shape (D,).
        size: length of the shortlist, shape (D,).
        shown: how many items the list shows, at most `size`, shape (D,).
        item: the shortlist by rank, -1 beyond its size, shape (D, SHORTLIST).
        score: descending, -inf beyond the size, shape (D, SHORTLIST).
        affinity: how much the visitor likes each, shape (D, SHORTLIST).
    """

    list: Ints
    variant: Ints
    size: Ints
    shown: Ints
    item: Ints
    score: Floats
    affinity: Floats

    def __len__(self) -> int:
        return len(self.list)


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
    digits = rng.bytes(6 * size).hex()
    names = [digits[i : i + 12] for i in range(0, len(digits), 12)]
    return Lists(session, number, np.where(number == 0, first, later), intent, names)


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


def variant_of(world: World, person: Ints) -> Ints:
    """The variant that each person is in, always; shape of `person`, 1-d."""
    return (hash_noise(world.seed, "variant", person) < 0.5).astype(np.int64)


def propensity(size: Ints, rank: Ints, position: Ints) -> Floats:
    """Probability with which the logging policy shows what is ranked `rank` at `position`, both from 1.

    >>> propensity(np.array([10, 10]), np.array([3, 3]), np.array([3, 1])).round(3).tolist()
    [0.82, 0.02]
    """
    return EXPLORATION / size + (1 - EXPLORATION) * (rank == position)


def fill(world: World, rng: np.random.Generator, sessions: Sessions, lists: Lists) -> tuple[Shown, Decisions]:
    """Choose what each list shows, without showing an item twice in one list."""
    candidates = np.sort(_candidates(world, rng, lists), axis=1)
    visitor = sessions.person[lists.session]
    affinity = world.affinity(visitor[:, None], candidates)
    recommended = RECOMMENDED[lists.kind]
    variant = variant_of(world, visitor)
    weight = RANKED_BY_LIKING[lists.kind] * np.where(recommended, MODEL_WEIGHTS[variant], 1.0)
    # Rounded before it ranks, so that the score in an event is the one that ranked.
    score = np.round(weight[:, None] * affinity + rng.gumbel(size=candidates.shape), 4)
    score[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -np.inf
    ranked = np.argsort(-score, axis=1, kind="stable")[:, :SHORTLIST]
    candidates = np.take_along_axis(candidates, ranked, axis=1)
    affinity, score = (np.take_along_axis(of, ranked, axis=1) for of in (affinity, score))
    size = (score > -np.inf).sum(axis=1)
    shown = np.minimum(np.clip(rng.poisson(7.0, size=len(size)), 3, MOST_SHOWN), size)
    order = _explored(rng, size, recommended)
    row, column = np.nonzero(np.arange(MOST_SHOWN) < shown[:, None])
    rank, place = order[row, column], column + 1
    of_model = recommended[row]
    shows = Shown(
        row,
        candidates[row, rank],
        place,
        affinity[row, rank],
        np.where(of_model, score[row, rank], np.nan),
        np.where(of_model, propensity(size[row], rank + 1, place), np.nan),
    )
    at = np.flatnonzero(recommended)
    there = score[at] > -np.inf
    shortlist = np.where(there, candidates[at], -1)
    return shows, Decisions(at, variant[at], size[at], shown[at], shortlist, score[at], affinity[at])


def _explored(rng: np.random.Generator, size: Ints, recommended: npt.NDArray[np.bool_]) -> Ints:
    """The rank (from 0) at each place: the ranking, or a random order of it; shape (L, SHORTLIST)."""
    order = np.tile(np.arange(SHORTLIST), (len(size), 1))
    explores = np.flatnonzero(recommended & (rng.random(len(size)) < EXPLORATION))
    keys = rng.random((len(explores), SHORTLIST))
    keys[np.arange(SHORTLIST) >= size[explores][:, None]] = np.inf
    order[explores] = np.argsort(keys, axis=1, kind="stable")
    return order
