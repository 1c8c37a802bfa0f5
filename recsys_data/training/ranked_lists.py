"""Recommendations joined with the truth, as arrays of codes in the order in which trec_eval reads a run."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys_data.errors import UserError
from recsys_data.training.tables import codes, column, ranks, vocabulary


@dataclass(frozen=True, slots=True)
class RankedLists:
    """Rows of recommendations by query, then by rank. Codes are places in `queries` and `items`.

    Attributes:
        queries: the ids of all queries that count, sorted.
        items: the ids of all items of the recommendations and of the truth, sorted.
        query: code of each row.
        item: code of each row.
        rank: of each row, from 1.
        gain: of each row; 0 for items that are not in the truth.
        truth_query: code of each row of the truth, by descending gain in each query.
        truth_gain: of each row of the truth.
    """

    queries: pa.Array
    items: pa.Array
    query: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    gain: np.ndarray
    truth_query: np.ndarray
    truth_gain: np.ndarray

    @classmethod
    def of(cls, recommendations: pa.Table, truth: pa.Table | None) -> "RankedLists":
        """Check, code, sort and join.

        Raises:
            UserError: a column is missing or has nulls, or an item is there twice for a query.
        """
        said = "recommendations"
        query_id = column(recommendations, "query_id", pa.string(), said)
        item_id = column(recommendations, "item_id", pa.string(), said)
        score = column(recommendations, "score", pa.float64(), said).to_numpy()
        none = pa.array([], pa.string())
        true_query = none if truth is None else column(truth, "query_id", pa.string(), "truth")
        true_item = none if truth is None else column(truth, "item_id", pa.string(), "truth")
        true_gain = np.zeros(0) if truth is None else column(truth, "gain", pa.float64(), "truth").to_numpy()

        queries = vocabulary([query_id if truth is None else true_query])
        items = vocabulary([item_id, true_item])
        query, item = codes(query_id, queries), codes(item_id, items)
        counts = query >= 0
        query, item, score = query[counts], item[counts], score[counts]
        order = np.lexsort((-item, -score, query))
        query, item = query[order], item[order]

        pairs = query * len(items) + item
        true_pairs = codes(true_query, queries) * len(items) + codes(true_item, items)
        _refuse_twice(pairs, queries, items, said)
        by_pair = _refuse_twice(true_pairs, queries, items, "truth")
        true_pairs, true_gain = true_pairs[by_pair], true_gain[by_pair]
        gain = np.zeros(len(pairs))
        if len(true_pairs):
            place = np.minimum(np.searchsorted(true_pairs, pairs), len(true_pairs) - 1)
            gain = np.where(true_pairs[place] == pairs, true_gain[place], 0.0)
        truth_query = true_pairs // max(1, len(items))
        by_gain = np.lexsort((-true_gain, truth_query))
        return cls(queries, items, query, item, ranks(query), gain, truth_query[by_gain], true_gain[by_gain])

    def sums(self, query: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """The sum of values, or how many there are, for each query; added in the order of the rows."""
        return np.bincount(query, values, minlength=len(self.queries)).astype(float)

    def relevant_items(self) -> np.ndarray:
        """How many items of the truth are relevant, for each query."""
        return self.sums(self.truth_query[self.truth_gain > 0])

    def hits_up_to_here(self) -> np.ndarray:
        """How many items of the same list are relevant, up to and with each row."""
        relevant = self.gain > 0
        running = np.cumsum(relevant)
        begins = self.rank == 1
        before = (running - relevant)[begins]
        return running - np.repeat(before, np.diff(np.r_[np.flatnonzero(begins), len(running)]))

    def ideal_dcg(self, cutoff: int | None) -> np.ndarray:
        """The discounted gain of the best order of the truth, for each query."""
        place = ranks(self.truth_query)
        inside = self.truth_gain > 0
        if cutoff is not None:
            inside &= place <= cutoff
        return self.sums(self.truth_query[inside], self.truth_gain[inside] / np.log2(place[inside] + 1.0))


def _refuse_twice(pairs: np.ndarray, queries: pa.Array, items: pa.Array, what: str) -> np.ndarray:
    """The order of the pairs of query and item, of which each must be there once."""
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        query, item = divmod(int(twice[0]), len(items))
        raise UserError(
            f"The {what} have item {items[item].as_py()!r} more than once for query {queries[query].as_py()!r} "
            f"({len(twice):,} such rows in all). Give each item of a query once."
        )
    return order
