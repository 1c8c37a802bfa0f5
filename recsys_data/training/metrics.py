"""Full-sort ranking metrics by trec_eval's definitions: nDCG@k, R@k, P@k, AP@k (MAP: AP), RR@k, Success@k.

Data flow: recommendations and truth (Arrow, see `tables`) -> codes, sorted by query and score -> one value for each
query and measure -> `Evaluation` (means, by segment, bootstrap intervals). `beyond_accuracy` adds coverage, novelty,
popularity, diversity and the share of new items.

What trec_eval does, and so does this (tested against it):
- The queries are those of the truth. One without recommendations counts 0 in every measure, one whose gains are
  all 0 too; recommendations for other queries are left out.
- The order of a list is that of its scores, equal scores by descending item id; `rank` is not read.
- nDCG: the gain itself over log2(rank + 1), divided by what the best order of the truth reaches in k. R@k and AP@k
  divide by the number of all relevant items, not by at most k.
trec_eval keeps scores as 32-bit floats and calls ties what is equal then; here they are compared as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import UserError
from recsys_data.training.beyond_accuracy import BEYOND_ACCURACY, ItemFacts
from recsys_data.training.bootstrap import Interval, mean, mean_interval
from recsys_data.training.ranked_lists import RankedLists
from recsys_data.training.tables import codes, column, vocabulary

DEFAULT_MEASURES = ("nDCG@10", "R@10", "P@10", "AP@10", "RR@10", "Success@1", "AP")
ACCURACY = ("nDCG", "R", "P", "AP", "RR", "Success")
WITHOUT_CUTOFF = ("nDCG", "AP", "RR")


@dataclass(frozen=True, slots=True)
class Measure:
    """A name such as `nDCG@10`, taken apart; `cutoff` is None for the whole list."""

    name: str
    kind: str
    cutoff: int | None

    @classmethod
    def parse(cls, name: str) -> "Measure":
        """Take a name apart; MAP is another name of AP.

        Raises:
            UserError: there is no such measure.
        """
        found = re.fullmatch(r"([A-Za-z]+)(?:@([1-9][0-9]*))?", name)
        kind, cutoff = found.groups() if found else ("", None)
        kind = "AP" if kind == "MAP" else kind
        if kind not in (*ACCURACY, *BEYOND_ACCURACY):
            raise UserError(
                f"Unknown measure {name!r}. Choose from {', '.join((*ACCURACY, *BEYOND_ACCURACY))}, @k each."
            )
        if cutoff is None and kind in ACCURACY and kind not in WITHOUT_CUTOFF:
            raise UserError(f"Measure {name!r} needs a cutoff, e.g. {name}@10.")
        return cls(name, kind, int(cutoff) if cutoff else None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        queries: how many queries count.
        metrics: measure -> mean over the queries; NaN where no query has a value.
        per_query: `query_id`, sorted, and a column of doubles for each measure that has a value for each query; null
            where a query has none (the diversity of an empty list). Measures of all lists together (CatalogCoverage)
            have no column.
    """

    queries: int
    metrics: dict[str, float]
    per_query: pa.Table = field(repr=False)

    def by_segment(self, segments: pa.Table) -> pa.Table:
        """Means by segment, of everything that has a column in `per_query`.

        Args:
            segments: `query_id`, `segment`; a query may be in several segments. Queries that were not evaluated are
                left out; those without a segment come under `(none)`.

        Returns:
            `segment`, sorted, `queries` and a column for each measure; null where no query has a value.

        Raises:
            UserError: the columns are not there, or a query is in the same segment twice.
        """
        known = self.per_query["query_id"].combine_chunks()
        query = codes(column(segments, "query_id", pa.string(), "segments"), known)
        name = column(segments, "segment", pa.string(), "segments")
        names = vocabulary([name, pa.array(["(none)"])])
        segment = codes(name, names)
        segment, query = segment[query >= 0], query[query >= 0]
        without = np.setdiff1d(np.arange(len(known)), query)
        (none,) = codes(pa.array(["(none)"]), names)
        segment, query = np.r_[segment, np.full(len(without), none)], np.r_[query, without]
        order = np.lexsort((query, segment))
        segment, query = segment[order], query[order]
        if ((segment[1:] == segment[:-1]) & (query[1:] == query[:-1])).any():
            raise UserError("A query is in the same segment twice. Give each pair of query_id and segment once.")
        present, begins, counts = np.unique(segment, return_index=True, return_counts=True)
        columns: dict[str, list[float | None]] = {}
        for measure in self.per_query.column_names[1:]:
            values = self._values(measure)[query]
            parts = (values[begin : begin + count] for begin, count in zip(begins, counts, strict=True))
            columns[measure] = [_mean(part[~np.isnan(part)]) for part in parts]
        rows = {measure: pa.array(values, pa.float64()) for measure, values in columns.items()}
        return pa.table({"segment": names.take(pa.array(present)), "queries": pa.array(counts, pa.int64()), **rows})

    def interval(self, measure: str, *, level: float = 0.95, samples: int = 1_000, seed: int = 0) -> Interval:
        """The mean of a measure and its bootstrap interval over the queries.

        Raises:
            UserError: the measure has no value for each query.
        """
        values = self._values(measure)
        return mean_interval(values[~np.isnan(values)], level=level, samples=samples, seed=seed)

    def difference(
        self, other: "Evaluation", measure: str, *, level: float = 0.95, samples: int = 1_000, seed: int = 0
    ) -> Interval:
        """This mean less that of `other`, paired by query, with its bootstrap interval: above 0, this is better.

        Raises:
            UserError: the measure has no value for each query, or the queries are not the same.
        """
        if not self.per_query["query_id"].equals(other.per_query["query_id"]):
            raise UserError(
                f"The evaluations have different queries ({self.queries:,} and {other.queries:,}). "
                "Evaluate both models with the same truth."
            )
        values = self._values(measure) - other._values(measure)
        return mean_interval(values[~np.isnan(values)], level=level, samples=samples, seed=seed)

    def _values(self, measure: str) -> np.ndarray:
        """By query; NaN where there is none."""
        if measure not in self.per_query.column_names[1:]:
            there = ", ".join(self.per_query.column_names[1:]) or "none"
            raise UserError(f"Measure {measure!r} has no value for each query here. Those that have: {there}.")
        return pc.fill_null(self.per_query[measure].combine_chunks(), np.nan).to_numpy(zero_copy_only=False)


def evaluate(
    recommendations: pa.Table,
    truth: pa.Table | None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    facts: ItemFacts | None = None,
) -> Evaluation:
    """Measure recommendations against what happened.

    Args:
        recommendations: `query_id`, `item_id`, `score`; an item at most once in a query.
        truth: `query_id`, `item_id`, `gain`; an item at most once in a query. None, if no measure reads it: then all
            queries with recommendations count.
        measures: names such as `nDCG@10`, `AP`, `CatalogCoverage@10`.
        facts: what is known of the items, for measures beyond accuracy.

    Raises:
        UserError: a table lacks a column, has nulls or an item twice, the truth is empty, or a measure is unknown
            or needs facts that were not given.
    """
    wanted = [Measure.parse(name) for name in dict.fromkeys(measures)]
    if truth is None and (of_truth := [one.name for one in wanted if one.kind in ACCURACY]):
        raise UserError(f"{', '.join(of_truth)} cannot be measured without a truth. Pass it, or other measures.")
    lists = RankedLists.of(recommendations, truth)
    if not len(lists.queries):
        raise UserError(
            "There is nothing to measure: the truth has no rows. Is the test period of the split empty?"
            if truth is not None
            else "There is nothing to measure: there are neither recommendations nor a truth."
        )
    metrics: dict[str, float] = {}
    columns: dict[str, pa.Array] = {}
    for one in wanted:
        if one.kind in ACCURACY:
            values: np.ndarray | float = _accuracy(lists, one)
        else:
            values = BEYOND_ACCURACY[one.kind](lists, one.cutoff, facts or ItemFacts(), one.name)
        if isinstance(values, np.ndarray):
            columns[one.name] = pa.array(values, from_pandas=True)
            metrics[one.name] = mean(values[~np.isnan(values)])
        else:
            metrics[one.name] = values
    return Evaluation(len(lists.queries), metrics, pa.table({"query_id": lists.queries, **columns}))


def evaluate_by_item_segment(
    recommendations: pa.Table, truth: pa.Table, items: pa.Table, measures: Sequence[str] = DEFAULT_MEASURES
) -> pa.Table:
    """Accuracy for the items of each segment alone, e.g. cold ones: other items are not relevant, but keep their ranks.

    Args:
        recommendations: as for `evaluate`.
        truth: as for `evaluate`.
        items: `item_id`, `segment`; items without a segment are in none.
        measures: of accuracy.

    Returns:
        `segment`, sorted, `queries` (those with a relevant item of the segment) and a column for each measure.

    Raises:
        UserError: as for `evaluate`.
    """
    item = column(items, "item_id", pa.string(), "segments of items")
    segment = column(items, "segment", pa.string(), "segments of items")
    relevant = truth.filter(pc.greater(column(truth, "gain", pa.float64(), "truth"), 0.0))
    rows: list[dict[str, object]] = []
    for name in vocabulary([segment]):
        inside = item.filter(pc.equal(segment, name))
        part = relevant.filter(pc.is_in(column(relevant, "item_id", pa.string(), "truth"), value_set=inside))
        if part.num_rows:
            found = evaluate(recommendations, part, measures)
            rows.append({"segment": name.as_py(), "queries": found.queries, **found.metrics})
    kinds = [("segment", pa.string()), ("queries", pa.int64()), *((name, pa.float64()) for name in measures)]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))


def _mean(values: np.ndarray) -> float | None:
    return mean(values) if len(values) else None


def _accuracy(lists: RankedLists, measure: Measure) -> np.ndarray:
    """One value for each query."""
    cutoff = measure.cutoff
    relevant = lists.gain > 0
    hits = relevant if cutoff is None else relevant & (lists.rank <= cutoff)
    query, rank = lists.query[hits], lists.rank[hits]
    total = lists.relevant_items()
    match measure.kind:
        case "P":
            return lists.sums(query) / cutoff
        case "R":
            return _ratio(lists.sums(query), total)
        case "Success":
            return (lists.sums(query) > 0).astype(float)
        case "RR":
            values = np.zeros(len(lists.queries))
            # Of several assignments to one place the last stays: the hit of the best rank.
            values[query[::-1]] = 1 / rank[::-1]
            return values
        case "AP":
            return _ratio(lists.sums(query, lists.hits_up_to_here()[hits] / rank), total)
        case _:
            reached = lists.sums(query, lists.gain[hits] / np.log2(rank + 1.0))
            return _ratio(reached, lists.ideal_dcg(cutoff))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
