"""What models can do, whatever they are made of. Tables: see `recsys_data.training.tables`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa

Ids = Iterable[str] | pa.Array | pa.ChunkedArray


@runtime_checkable
class Model(Protocol):
    """Learns from interactions and recommends items.

    The same interactions in any order give the same model, byte for byte, on the same kind of machine; a seed, where
    a model has one, is among its parameters.
    """

    @property
    def name(self) -> str:
        """Its name in `MODELS`."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All parameters with their values, as JSON has them."""
        ...

    def fit(self, interactions: pa.Table) -> Self:
        """Learn from `user_id`, `item_id`, `timestamp`, `weight`; returns itself.

        Weights of several interactions of a user with an item are added; pairs whose sum is not above 0 are left out.
        """
        ...

    def recommend(self, user_ids: Ids, n: int, *, exclude_seen: bool = True, candidates: Ids | None = None) -> pa.Table:
        """At most `n` items for each user: `query_id` (the user id), `item_id`, `score`, `rank`.

        Users come in the order given, each once. Equal scores come by descending item id, as metrics read them.
        Unknown users get the popular items. Where a model knows fewer than `n` items for a user, popular ones follow,
        with scores below 0.

        Args:
            user_ids: of whom.
            n: how many items, at least 1.
            exclude_seen: leave out the items that the user interacted with.
            candidates: the only items that may be recommended; None: all. Items that the model has not seen are not.
        """
        ...

    def similar(self, item_ids: Ids, n: int) -> pa.Table:
        """At most `n` other items for each item: `query_id` (the item id), `item_id`, `score`, `rank`.

        Unknown items have no rows.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted model as plain files (JSON, npy, Arrow): the same bytes for the same fit."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Learns to order the items of queries from features of their rows."""

    @property
    def name(self) -> str:
        """Its name in `RANKERS`."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All parameters with their values, as JSON has them."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Columns that rows must have; none before it is fitted."""
        ...

    def fit(self, rows: pa.Table, validation: pa.Table | None = None) -> Self:
        """Learn from `query_id`, `item_id`, `label` and features; returns itself.

        Args:
            rows: of the training period. Labels are gains: 0 or less is not relevant.
            validation: rows by which learning stops early; None: it does not.
        """
        ...

    def rank(self, rows: pa.Table) -> pa.Table:
        """The items of each query, best first: `query_id`, `item_id`, `score`, `rank`.

        Queries come by id; equal scores by descending item id. An item that a query has twice keeps its best score.
        """
        ...

    def scores(self, rows: pa.Table) -> np.ndarray:
        """The score of each row, by its features alone; the greater, the better."""
        ...

    def importance(self) -> pa.Table:
        """`feature`, `gain` (share of all, sums to 1), `splits` (how many), by descending gain."""
        ...

    def save(self, folder: Path) -> None:
        """Write the fitted model as plain files: the same bytes for the same fit."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        ...
