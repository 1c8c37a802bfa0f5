"""What a model is measured by: the test rows of a training set as queries with what is relevant to them.

A set of outcomes is for recommending, one of impressions for ranking what was shown. Both are measured overall and by
segment, beside references that know nothing of the visitor.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import UserError
from recsys_data.sql import literal, open_session
from recsys_data.training.baselines import MODELS, RANKERS, load_model, load_ranker
from recsys_data.training.beyond_accuracy import ItemFacts
from recsys_data.training.metrics import Evaluation, evaluate, evaluate_by_item_segment
from recsys_data.training.sets.declared import TrainingSet

if TYPE_CHECKING:
    import duckdb

N = 10
MEASURES = ("nDCG@10", "R@10", "P@10", "AP@10", "RR@10", "Success@10")
BEYOND = ("CatalogCoverage@10", "MeanInvUserFreq@10", "AvgRecPopularity@10")


@dataclass(frozen=True)
class Measured:
    """How good a model is.

    Attributes:
        metrics: measure -> mean over the queries; None where there is none.
        evaluation: with values by query.
        segments: `segment`, `queries` and a column for each measure: visitors and items that are in the training rows
            or not, and devices if the rows tell them.
    """

    metrics: dict[str, float | None]
    evaluation: Evaluation
    segments: pa.Table


@dataclass(frozen=True)
class Recommending:
    """Recommend new items to the visitors of the test rows, out of all items of the training rows.

    Attributes:
        train: interactions, as models take them.
        truth: what is relevant to each visitor.
        segments: `query_id`, `segment`.
        items: `item_id`, `segment`.
    """

    train: pa.Table
    truth: pa.Table
    segments: pa.Table
    items: pa.Table
    kinds: ClassVar[Mapping[str, Any]] = MODELS
    references: ClassVar[tuple[str, ...]] = ("popular", "random")

    @classmethod
    def of(cls, folder: Path, declared: TrainingSet) -> Self:
        """The task of a training set of outcomes that was built.

        Raises:
            UserError: it has nothing to learn from, or to test with.
        """
        with _rows_of(folder, declared) as connection:
            seen = "SELECT (visitor_id, item_id) FROM train WHERE label > 0"
            truth = f"""SELECT visitor_id AS query_id, item_id, max(label) AS gain FROM test
                WHERE label > 0 AND (visitor_id, item_id) NOT IN ({seen}) GROUP BY ALL"""
            segments = f"""SELECT query_id, CASE WHEN query_id IN (SELECT visitor_id FROM train) THEN 'visitor known'
                ELSE 'visitor new' END AS segment FROM (SELECT DISTINCT query_id FROM ({truth}))"""
            if "device_type" in declared.context:
                segments += f""" UNION ALL SELECT visitor_id,
                    'device ' || coalesce(arg_min(device_type, (timestamp, event_id)), 'unknown')
                    FROM test WHERE visitor_id IN (SELECT query_id FROM ({truth})) GROUP BY visitor_id"""
            items = f"""SELECT item_id, CASE WHEN item_id IN (SELECT item_id FROM train) THEN 'item known'
                ELSE 'item new' END AS segment FROM (SELECT DISTINCT item_id FROM ({truth}))"""
            train = """SELECT visitor_id AS user_id, item_id, timestamp, label AS weight,
                coalesce(session_id, visitor_id) AS session_id FROM train WHERE label > 0"""
            made = cls(*(connection.sql(sql).to_arrow_table() for sql in (train, truth, segments, items)))
        if not made.train.num_rows or not made.truth.num_rows:
            raise UserError(f"{declared.name}: no test row has an item new to its visitor. Widen the split.")
        return made

    def fit(self, model: Any) -> Any:
        return model.fit(self.train)

    def reference(self, name: str) -> Measured:
        return self.measure(MODELS[name]().fit(self.train))

    def measure(self, model: Any) -> Measured:
        """Recommend to every visitor, and measure."""
        facts = ItemFacts(catalog=pc.unique(self.train["item_id"]), interactions=self.train)
        found = model.recommend(pc.unique(self.truth["query_id"]).sort(), N, exclude_seen=True)
        evaluation = evaluate(found, self.truth, [*MEASURES, *BEYOND], facts=facts)
        of_items = evaluate_by_item_segment(found, self.truth, self.items, MEASURES)
        return _measured(evaluation, self.segments, of_items)

    @staticmethod
    def load(folder: Path) -> Any:
        return load_model(folder)


@dataclass(frozen=True)
class Ranking:
    """Put the items that were shown together, and of which one was followed, in a better order.

    Attributes:
        train: rows with features.
        validation: rows by which learning stops, or None.
        test: rows of queries that have a followed item and another one.
        segments: `query_id`, `segment`.
    """

    train: pa.Table
    validation: pa.Table | None
    test: pa.Table
    segments: pa.Table
    kinds: ClassVar[Mapping[str, Any]] = RANKERS
    references: ClassVar[tuple[str, ...]] = ("as shown", "random")

    @classmethod
    def of(cls, folder: Path, declared: TrainingSet) -> Self:
        """The task of a training set of impressions that was built.

        Raises:
            UserError: it has nothing to learn from, or to test with.
        """
        with _rows_of(folder, declared) as connection:

            def useful(split: str) -> str:
                lists = f"SELECT query_id FROM {split} GROUP BY query_id HAVING max(label) > 0 AND count(*) > 1"
                return f"FROM {split} WHERE query_id IN ({lists})"

            def rows(split: str) -> pa.Table:
                return connection.sql(useful(split)).to_arrow_table()

            device = "coalesce(max(device_type), 'unknown')" if "device_type" in declared.context else "'unknown'"
            segments = f"SELECT query_id, 'device ' || {device} AS segment {useful('test')} GROUP BY query_id"
            validation = rows("validation") if (folder / "validation.parquet").is_file() else None
            made = cls(rows("train"), validation, rows("test"), connection.sql(segments).to_arrow_table())
        if not made.train.num_rows or not made.test.num_rows:
            raise UserError(f"{declared.name}: no list of the rows has a followed item and another. Widen the split.")
        return made

    def fit(self, model: Any) -> Any:
        return model.fit(self.train, self.validation if self.validation else None)

    def reference(self, name: str) -> Measured:
        """In the order in which they were shown (what was not shown last), or in one by chance."""
        if name == "random":
            drawn = np.random.default_rng(0).random(self.test.num_rows)
        else:
            drawn = -pc.fill_null(self.test["position"], 1 << 30).to_numpy()
        return self._of(self.test.select(["query_id", "item_id"]).append_column("score", pa.array(drawn, pa.float64())))

    def measure(self, model: Any) -> Measured:
        """Rank the items of every query, and measure."""
        return self._of(model.rank(self.test))

    def _of(self, ranked: pa.Table) -> Measured:
        keys = ["query_id", "item_id"]
        truth = self.test.group_by(keys, use_threads=False).aggregate([("label", "max")])
        truth = truth.rename_columns([*keys, "gain"]).filter(pc.field("gain") > 0)
        best = ranked.group_by(keys, use_threads=False).aggregate([("score", "max")]).rename_columns([*keys, "score"])
        evaluation = evaluate(best, truth, MEASURES)
        return _measured(evaluation, self.segments)

    @staticmethod
    def load(folder: Path) -> Any:
        return load_ranker(folder)


Task = Recommending | Ranking


def task_of(folder: Path, declared: TrainingSet) -> Task:
    """What the rows of a training set are for."""
    return (Ranking if declared.rows == "impressions" else Recommending).of(folder, declared)


@contextmanager
def _rows_of(folder: Path, declared: TrainingSet) -> "Iterator[duckdb.DuckDBPyConnection]":
    """A session with a view for each split of a set, `train` and `test` at least."""
    with open_session(parallel=True) as connection:
        for split in ("train", "validation", "test"):
            path = folder / f"{split}.parquet"
            if path.is_file():
                rows = f"read_parquet({literal(escape(str(path)))})"
                connection.execute(f"CREATE TEMP VIEW {split} AS FROM {rows}")
            elif split != "validation":
                raise UserError(
                    f"{declared.name} {folder.name} has no {split} rows; it is split by {declared.split.by}. Change "
                    f"its split, or build again with more. See: recsys-data training-set show {declared.name}"
                )
        yield connection


def _measured(evaluation: Evaluation, segments: pa.Table, of_items: pa.Table | None = None) -> Measured:
    metrics = {name: None if isnan(value) else value for name, value in evaluation.metrics.items()}
    found = evaluation.by_segment(segments).select(["segment", "queries", *MEASURES])
    return Measured(metrics, evaluation, pa.concat_tables([found, of_items]) if of_items else found)
