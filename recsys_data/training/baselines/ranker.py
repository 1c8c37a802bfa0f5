"""LightGBM's lambdarank: orders the items of a query by features of both (Burges 2010, https://www.microsoft.com/en-us/research/publication/from-ranknet-to-lambdarank-to-lambdamart-an-overview/).

Data flow: rows of a training set (features, `label`, `query_id`) -> matrix of 32-bit floats, rows sorted -> trees ->
`rank`. What it optimises is nDCG with the labels themselves as gains, as `metrics` measures it. On one thread and
without chance, so that the same rows in any order give the same trees. LightGBM is the extra `recsys-data[ranker]`.
"""

import json
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.durable import sync_all, write_atomically
from recsys_data.errors import UserError
from recsys_data.training.baselines import MODEL_FILE
from recsys_data.training.baselines.files import FORMAT, replace
from recsys_data.training.baselines.parameters import Count, Fraction, NotNegative, Parameters, Positive, Seed, checked
from recsys_data.training.tables import RECOMMENDATIONS, codes, column, ranks, vocabulary

TREES = "trees.txt"
MAX_ROWS_OF_QUERY = 10_000
# Columns of a training set that say which row it is, or what came of it, and so are not features unless they are named.
NOT_FEATURES = frozenset(
    {
        *(
            "event_id",
            "row_id",
            "query_id",
            "visitor_id",
            "user_id",
            "anonymous_id",
            "item_id",
            "session_id",
            "list_id",
        ),
        *("recommendation_id", "order_id", "timestamp", "weight", "split", "position", "model", "variant", "score"),
        *("propensity", "previous_item_id", "negative"),
    }
)


class RankerParameters(Parameters, frozen=True):
    """Parameters of `LambdaRank`.

    Attributes:
        features: names of columns; empty: all of numbers, truth values and text that are not keys or outcomes.
        trees: at most so many.
        leaves: of a tree.
        learning_rate: of each tree.
        min_rows: in a leaf.
        feature_fraction: share of the features that a tree may use.
        l2: regularization.
        patience: with validation rows, stops after so many trees that made nDCG@10 no better.
        position_bias: learn how the column `position` changes what is followed, and leave it out of the scores.
        seed: of what is drawn.
    """

    features: tuple[str, ...] = ()
    trees: Count = 200
    leaves: Count = 31
    learning_rate: Positive = 0.05
    min_rows: Count = 20
    feature_fraction: Fraction = 1.0
    l2: NotNegative = 0.0
    patience: Count = 20
    position_bias: bool = False
    seed: Seed = 0


class LambdaRank:
    """Gradient boosted trees that order the items of a query."""

    NAME = "ranker"

    def __init__(self, **parameters: Any) -> None:
        """Make a ranker that is not fitted.

        Raises:
            UserError: there is no such parameter, or its value makes no sense.
        """
        self.settings = checked(self.NAME, RankerParameters, parameters)
        self._trees: Any = None
        # Feature -> its categories if it is text.
        self._features: dict[str, list[str] | None] = {}
        # Categories as codes are looked up in them.
        self._arrays: dict[str, pa.Array] = {}

    @property
    def name(self) -> str:
        return self.NAME

    @property
    def parameters(self) -> dict[str, Any]:
        return msgspec.json.decode(msgspec.json.encode(self.settings))

    @property
    def features(self) -> tuple[str, ...]:
        """Columns that it was fitted with; see `model.Ranker`."""
        return tuple(self._features)

    def fit(self, rows: pa.Table, validation: pa.Table | None = None) -> Self:
        """Learn; see `model.Ranker`.

        Raises:
            UserError: there is nothing to learn from, or a column is missing or cannot be a feature.
        """
        import lightgbm

        self._arrays = {}
        self._features = {
            name: vocabulary([column(rows.filter(pc.is_valid(rows[name])), name, pa.string(), "rows")]).to_pylist()
            if _is_text(rows.schema.field(name).type)
            else None
            for name in _feature_names(rows, self.settings.features)
        }
        gains = np.unique(np.maximum(column(rows, "label", pa.float64(), "rows").to_numpy(), 0))
        if len(gains) == 0 or gains[-1] <= 0:
            raise UserError(f"None of the {rows.num_rows:,} rows has a label above 0: there is nothing to learn from.")
        gains = np.union1d(gains, [0.0])
        learned = self._dataset(rows, gains)
        checks = [] if validation is None else [self._dataset(validation, gains, learned)]
        chosen = self.settings
        self._trees = lightgbm.train(
            {
                "objective": "lambdarank",
                # A grade for each label, whose gain is the label: LightGBM's own would be 2 ** label - 1.
                "label_gain": gains.tolist(),
                "metric": "ndcg" if checks else "none",
                "eval_at": [10],
                "num_leaves": max(2, chosen.leaves),
                "learning_rate": chosen.learning_rate,
                "min_data_in_leaf": chosen.min_rows,
                "feature_fraction": chosen.feature_fraction,
                "lambda_l2": chosen.l2,
                "seed": chosen.seed,
                "deterministic": True,
                "force_row_wise": True,
                "num_threads": 1,
                "verbosity": -1,
            },
            learned,
            num_boost_round=chosen.trees,
            valid_sets=checks,
            callbacks=[lightgbm.early_stopping(chosen.patience, verbose=False)] if checks else [],
        )
        return self

    def scores(self, rows: pa.Table) -> np.ndarray:
        """The score of each row; see `model.Ranker`.

        Raises:
            UserError: as `rank`.
        """
        trees = self._fitted()
        return trees.predict(self._matrix(rows), num_threads=1) if rows.num_rows else np.zeros(0)

    def rank(self, rows: pa.Table) -> pa.Table:
        """Order the items of queries; see `model.Ranker`.

        Raises:
            UserError: it is not fitted, or a column is missing.
        """
        self._fitted()
        query_id = column(rows, "query_id", pa.string(), "rows")
        item_id = column(rows, "item_id", pa.string(), "rows")
        score = self.scores(rows)
        queries, items = vocabulary([query_id]), vocabulary([item_id])
        query, item = codes(query_id, queries), codes(item_id, items)
        order = np.lexsort((-item, -score, query))
        pairs = (query * len(items) + item)[order]
        # The first place of each pair is that of its best score.
        order = order[np.sort(np.unique(pairs, return_index=True)[1])]
        columns = {
            "query_id": queries.take(pa.array(query[order])),
            "item_id": items.take(pa.array(item[order])),
            "score": pa.array(score[order], pa.float64()),
            "rank": pa.array(ranks(query[order]), pa.int32()),
        }
        return pa.table(columns, schema=RECOMMENDATIONS)

    def importance(self) -> pa.Table:
        """How much each feature does; see `model.Ranker`.

        Raises:
            UserError: it is not fitted.
        """
        trees = self._fitted()
        gain = trees.feature_importance("gain")
        table = pa.table(
            {
                "feature": pa.array(list(self._features), pa.string()),
                "gain": pa.array(gain / max(gain.sum(), np.finfo(float).tiny), pa.float64()),
                "splits": pa.array(trees.feature_importance("split"), pa.int64()),
            }
        )
        return table.sort_by([("gain", "descending"), ("feature", "ascending")])

    def save(self, folder: Path) -> None:
        """Write the model; see `model.Ranker`.

        Raises:
            UserError: it is not fitted.
        """
        trees = self._fitted()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).unlink(missing_ok=True)
        text = trees.model_to_string().encode()
        sync_all([replace(folder / TREES, lambda file: file.write(text))])
        content = {
            "format": FORMAT,
            "name": self.NAME,
            "parameters": self.parameters,
            # A list, because their order is that of the columns of the trees.
            "features": [{"name": name, "categories": known} for name, known in self._features.items()],
        }
        write_atomically(folder / MODEL_FILE, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model; see `model.Ranker`.

        Raises:
            UserError: the folder holds no whole model of this kind and format.
        """
        import lightgbm

        try:
            content = json.loads((folder / MODEL_FILE).read_text("utf-8"))
            if (content["name"], content["format"]) != (cls.NAME, FORMAT):
                raise UserError(
                    f"{folder} holds a model {content['name']} of format {content['format']}. "
                    f"Expected {cls.NAME} of format {FORMAT}: fit it again with this version."
                )
            model = cls(**content["parameters"])
            model._features = {one["name"]: one["categories"] for one in content["features"]}
            model._trees = lightgbm.Booster(model_str=(folder / TREES).read_text("utf-8"))
            return model
        except (OSError, ValueError, KeyError, lightgbm.basic.LightGBMError) as error:
            raise UserError(f"{folder} holds no whole model: {error}. Fit and save it again.") from None

    def _fitted(self) -> Any:
        if self._trees is None:
            raise UserError(f"The model {self.NAME} is not fitted. Call `fit` with rows, or `load` one.")
        return self._trees

    def _dataset(self, rows: pa.Table, gains: np.ndarray, like: Any = None) -> Any:
        """Rows by query, then by all that they hold, so that their order does not matter."""
        import lightgbm

        label = np.maximum(column(rows, "label", pa.float64(), "rows").to_numpy(), 0)
        query_id = column(rows, "query_id", pa.string(), "rows")
        item_id = column(rows, "item_id", pa.string(), "rows")
        query, item = codes(query_id, vocabulary([query_id])), codes(item_id, vocabulary([item_id]))
        matrix = self._matrix(rows)
        position = None
        if self.settings.position_bias:
            position = pc.fill_null(column(rows, "position", pa.int64(), "rows"), 0).to_numpy()
        places = np.zeros(len(query)) if position is None else position
        # NaN, the missing value, is sorted after all numbers.
        order = np.lexsort((*matrix.T[::-1], places, label, item, query))
        # A label that only validation rows have counts as the nearest that was learned.
        grade = np.searchsorted((gains[1:] + gains[:-1]) / 2, label[order])
        rows_of = np.unique(query, return_counts=True)[1]
        if rows_of.max(initial=0) > MAX_ROWS_OF_QUERY:
            raise UserError(
                f"A query has {rows_of.max():,} rows; LightGBM takes at most {MAX_ROWS_OF_QUERY:,}. "
                "Take fewer negatives."
            )
        return lightgbm.Dataset(
            matrix[order],
            label=grade,
            group=rows_of,
            position=None if position is None else position[order],
            feature_name=[f"f{n}" for n in range(len(self._features))],
            categorical_feature=[n for n, known in enumerate(self._features.values()) if known is not None],
            reference=like,
            free_raw_data=True,
        )

    def _matrix(self, rows: pa.Table) -> np.ndarray:
        """Rows x features, 32-bit floats; NaN for null, and for text that was not learned."""
        found = np.empty((rows.num_rows, len(self._features)), np.float32)
        there = {name: number for number, name in enumerate(rows.column_names)}
        for place, (name, known) in enumerate(self._features.items()):
            if name not in there:
                raise UserError(f"The rows have no column {name}, which this ranker was fitted with.")
            values = rows.column(there[name]).combine_chunks()
            if known is None:
                found[:, place] = _numbers(values)
            else:
                code = codes(pc.cast(values, pa.string()), self._category_array(name, known))
                found[:, place] = np.where(code < 0, np.nan, code)
        return found

    def _category_array(self, name: str, known: list[str]) -> pa.Array:
        if name not in self._arrays:
            self._arrays[name] = pa.array(known, pa.string())
        return self._arrays[name]


def _numbers(values: pa.Array) -> np.ndarray:
    """Numbers or truth values as 64-bit floats; NaN for null."""
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return values.to_numpy(zero_copy_only=False).astype(np.float64)
    return pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy(zero_copy_only=False)


def _feature_names(rows: pa.Table, named: tuple[str, ...]) -> list[str]:
    """The columns that are features."""
    if missing := [name for name in named if name not in rows.column_names]:
        raise UserError(f"The rows have no column {', '.join(missing)}. There are {', '.join(rows.column_names)}.")
    fit = {name: kind for name, kind in zip(rows.schema.names, rows.schema.types, strict=True) if _can_be_feature(kind)}
    if other := [name for name in named if name not in fit]:
        kinds = ", ".join(f"{name} ({rows.schema.field(name).type})" for name in other)
        raise UserError(f"{kinds} cannot be features. Expected numbers, truth values or text.")
    found = list(named) or sorted(name for name in fit if name not in NOT_FEATURES and not name.startswith("label"))
    if not found:
        raise UserError(f"The rows have no features: there are {', '.join(rows.column_names)}.")
    return found


def _can_be_feature(kind: pa.DataType) -> bool:
    of_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(one(kind) for one in of_number) or _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
