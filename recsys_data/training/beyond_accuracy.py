"""Metrics of recommended lists that need no truth: coverage, novelty, popularity, diversity, the share of new items.

All are of the first k items of each list, means over the queries with recommendations. The names are those of RecTools
(https://rectools.readthedocs.io), whose definitions they follow where this says nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import UserError
from recsys_data.training.ranked_lists import RankedLists
from recsys_data.training.tables import codes, column, ids, vocabulary

if TYPE_CHECKING:
    from scipy import sparse

Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What is known of the items; a measure that needs what is not given is refused.

    Attributes:
        catalog: ids of all items that could be recommended.
        interactions: `user_id`, `item_id` of the training period.
        categories: `item_id`, `category`; an item may have several.
        vectors: `item_id`, `vector` (lists of one length); an item at most once.
        new_items: ids of the items that count as new, e.g. those first seen in the last 30 days.
    """

    catalog: pa.Array | None = None
    interactions: pa.Table | None = None
    categories: pa.Table | None = None
    vectors: pa.Table | None = None
    new_items: pa.Array | None = None


def catalog_coverage(lists: RankedLists, cutoff: int | None, facts: ItemFacts, name: str) -> float:
    """The share of the items of the catalog that were recommended to anybody."""
    catalog = vocabulary([ids(_given(facts.catalog, name, "catalog"), "items of the catalog")])
    if not len(catalog):
        raise UserError(f"{name}: the catalog has no items.")
    shown = lists.items.take(pa.array(np.unique(lists.item[_inside(lists, cutoff)])))
    return pc.sum(pc.is_in(shown, value_set=catalog)).as_py() / len(catalog) if len(shown) else 0.0


def mean_inverse_user_frequency(lists: RankedLists, cutoff: int | None, facts: ItemFacts, name: str) -> np.ndarray:
    """Novelty in bits: the mean of -log2(share of the users who interacted with the item).

    An item that nobody interacted with counts as if one user had.
    """
    interactions = _given(facts.interactions, name, "interactions")
    user = column(interactions, "user_id", pa.string(), "interactions")
    users = vocabulary([user])
    if not len(users):
        raise UserError(f"{name}: the interactions have no rows.")
    item = codes(column(interactions, "item_id", pa.string(), "interactions"), lists.items)
    pairs = np.unique(item * len(users) + codes(user, users))
    counts = np.bincount(pairs[pairs >= 0] // len(users), minlength=len(lists.items))
    return _mean_of_items(lists, cutoff, -np.log2(np.maximum(counts, 1) / len(users)))


def average_popularity(lists: RankedLists, cutoff: int | None, facts: ItemFacts, name: str) -> np.ndarray:
    """The mean number of interactions of the recommended items."""
    interactions = _given(facts.interactions, name, "interactions")
    item = codes(column(interactions, "item_id", pa.string(), "interactions"), lists.items)
    counts = np.bincount(item[item >= 0], minlength=len(lists.items))
    return _mean_of_items(lists, cutoff, counts.astype(float))


def intra_list_diversity(lists: RankedLists, cutoff: int | None, facts: ItemFacts, name: str) -> np.ndarray:
    """The mean of 1 - cosine similarity over all pairs of a list; 0 for a list of one item.

    Of `vectors`, or of the categories as a vector of zeros and ones: two items of one category each differ by 0 or 1.
    Items without a vector, or with one of zeros, are left out; a list without any other has no value.
    """
    from scipy import sparse

    if facts.vectors is not None and facts.categories is not None:
        raise UserError(f"{name} is of vectors or of categories. Give one of them.")
    vectors = _unit_vectors(lists, facts, name)
    has = np.zeros(len(lists.items), dtype=bool)
    has[np.unique(vectors.nonzero()[0])] = True
    rows = _inside(lists, cutoff) & has[lists.item]
    query, item = lists.query[rows], lists.item[rows]
    count = lists.sums(query)
    shape = (len(lists.queries), len(lists.items))
    together = sparse.csr_array((np.ones(len(query)), (query, item)), shape=shape) @ vectors
    # The similarities of all ordered pairs are the square of the sum of the unit vectors, less one for each item.
    similar = np.asarray(together.multiply(together).sum(axis=1)).ravel() - count
    pairs = count * (count - 1)
    values = 1 - np.divide(similar, pairs, out=np.ones(len(pairs)), where=pairs > 0)
    return np.where(count > 0, np.clip(values, 0, None), np.nan)


def share_of_new_items(lists: RankedLists, cutoff: int | None, facts: ItemFacts, name: str) -> np.ndarray:
    """The share of the recommended items that are new."""
    new = codes(ids(_given(facts.new_items, name, "new_items"), "new items"), lists.items)
    share = np.zeros(len(lists.items))
    share[new[new >= 0]] = 1.0
    return _mean_of_items(lists, cutoff, share)


BEYOND_ACCURACY: dict[str, Callable[[RankedLists, int | None, ItemFacts, str], np.ndarray | float]] = {
    "CatalogCoverage": catalog_coverage,
    "MeanInvUserFreq": mean_inverse_user_frequency,
    "AvgRecPopularity": average_popularity,
    "IntraListDiversity": intra_list_diversity,
    "NewItemShare": share_of_new_items,
}


def _given(fact: Fact | None, name: str, what: str) -> Fact:
    if fact is None:
        raise UserError(f"{name} needs to know `{what}` of the items. Pass them in `facts`.")
    return fact


def _inside(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return np.ones(len(lists.rank), dtype=bool) if cutoff is None else lists.rank <= cutoff


def _mean_of_items(lists: RankedLists, cutoff: int | None, values: np.ndarray) -> np.ndarray:
    """The mean of the items' values for each query; NaN where it has no recommendations."""
    rows = _inside(lists, cutoff)
    count = lists.sums(lists.query[rows])
    total = lists.sums(lists.query[rows], values[lists.item[rows]])
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _unit_vectors(lists: RankedLists, facts: ItemFacts, name: str) -> "sparse.csr_array":
    """A row of length 1 for each item of the lists; a row of zeros for an item of which nothing is known."""
    from scipy import sparse

    if facts.categories is not None:
        item = codes(column(facts.categories, "item_id", pa.string(), "categories"), lists.items)
        category = column(facts.categories, "category", pa.string(), "categories")
        kinds = vocabulary([category])
        pairs = np.unique(item * len(kinds) + codes(category, kinds))
        row, place = np.divmod(pairs[pairs >= 0], max(1, len(kinds)))
        values, width = np.ones(len(row)), len(kinds)
    else:
        vectors = _given(facts.vectors, name, "vectors` or `categories")
        item = codes(column(vectors, "item_id", pa.string(), "vectors"), lists.items)
        if len(np.unique(item[item >= 0])) < (item >= 0).sum():
            raise UserError("An item has more than one vector. Give one for each.")
        lengths = pc.unique(pc.list_value_length(vectors["vector"])).to_pylist()
        if len(lengths) > 1 or None in lengths:
            raise UserError(f"The vectors have the lengths {lengths}. Expected one length, and no nulls.")
        width = lengths[0] if lengths else 0
        values = pc.cast(pc.list_flatten(vectors["vector"]), pa.float64()).to_numpy()
        row, place = np.repeat(item, width), np.tile(np.arange(width), len(item))
        row, place, values = row[row >= 0], place[row >= 0], values[row >= 0]
    found = sparse.csr_array((values, (row, place)), shape=(len(lists.items), width))
    found.eliminate_zeros()
    norm = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    scale = np.divide(1.0, norm, out=np.zeros(len(norm)), where=norm > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ found)
