"""What a model is measured by: the test rows of a training set as queries with what is relevant to them.

Rows of outcomes: each visitor of the test rows is a query, and the items that they are new to are relevant; every item
of the training rows is a candidate. Measured overall and by segment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import UserError
from recsys_data.sql import literal, open_session
from recsys_data.training.beyond_accuracy import ItemFacts
from recsys_data.training.metrics import Evaluation, evaluate, evaluate_by_item_segment
from recsys_data.training.sets.declared import TrainingSet

if TYPE_CHECKING:
    from recsys_data.training.baselines.model import Model

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
class Task:
    """What is learnt from and tested with.

    Attributes:
        train: interactions, as models take them.
        truth: what is relevant to each query.
        segments: `query_id`, `segment`.
        items: `item_id`, `segment`.
        facts: of the items, for measures beyond accuracy.
    """

    train: pa.Table
    truth: pa.Table
    segments: pa.Table
    items: pa.Table
    facts: ItemFacts

    @classmethod
    def of(cls, folder: Path, declared: TrainingSet) -> Self:
        """The task of a training set that was built.

        Raises:
            UserError: it has nothing to learn from, or to test with.
        """
        for split in ("train", "test"):
            if not (folder / f"{split}.parquet").is_file():
                raise UserError(
                    f"{declared.name} has no {split} rows in {folder}; it is split by {declared.split.by}. If its "
                    f"files were removed, run: recsys-data training-set rebuild {declared.name} --version {folder.name}"
                )
        with open_session(parallel=True) as connection:
            for split in ("train", "test"):
                path = literal(escape(str(folder / f"{split}.parquet")))
                connection.execute(f"CREATE TEMP VIEW {split} AS FROM read_parquet({path}) WHERE label > 0")

            def table(sql: str) -> pa.Table:
                return connection.sql(sql).to_arrow_table()

            truth = """SELECT visitor_id AS query_id, item_id, max(label) AS gain FROM test
                ANTI JOIN train USING (visitor_id, item_id) GROUP BY ALL"""
            segments = f"""SELECT query_id, CASE WHEN query_id IN (SELECT visitor_id FROM train) THEN 'visitor known'
                ELSE 'visitor new' END AS segment FROM (SELECT DISTINCT query_id FROM ({truth}))"""
            if "device_type" in declared.context:
                segments += f""" UNION ALL SELECT visitor_id,
                    'device ' || coalesce(arg_min(device_type, (timestamp, event_id)), 'unknown')
                    FROM test WHERE visitor_id IN (SELECT query_id FROM ({truth})) GROUP BY visitor_id"""
            items = f"""SELECT item_id, CASE WHEN item_id IN (SELECT item_id FROM train) THEN 'item known'
                ELSE 'item new' END AS segment FROM (SELECT DISTINCT item_id FROM ({truth}))"""
            train = table(
                """SELECT visitor_id AS user_id, item_id, timestamp, label AS weight,
                coalesce(session_id, visitor_id) AS session_id FROM train"""
            )
            found = table(truth)
            if not len(found) or not len(train):
                raise UserError(f"{declared.name}: no test row has an item new to its visitor. Widen the split.")
            facts = ItemFacts(catalog=pc.unique(train["item_id"]), interactions=train)
            return cls(train, found, table(segments), table(items), facts)

    def measure(self, model: "Model", on_progress: Callable[[str], None] = lambda step: None) -> Measured:
        """Recommend to every query, and measure."""
        on_progress(f"measuring {model.name}")
        users = pc.unique(self.truth["query_id"]).sort()
        found = model.recommend(users, N, exclude_seen=True)
        evaluation = evaluate(found, self.truth, [*MEASURES, *BEYOND], facts=self.facts)
        of_items = evaluate_by_item_segment(found, self.truth, self.items, MEASURES)
        of_users = evaluation.by_segment(self.segments).select(["segment", "queries", *MEASURES])
        metrics = {name: None if isnan(value) else value for name, value in evaluation.metrics.items()}
        return Measured(metrics, evaluation, pa.concat_tables([of_users, of_items]))
