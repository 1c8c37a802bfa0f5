"""What models over a matrix of users and items share: checks, blocks, fallback, top n, files.

A model says what it learns (`_learn`), how well the items suit a block of users (`_scores`), how alike items are
(`_alike`), and which of its attributes are its state (`STATE`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
import pyarrow as pa

from recsys_data.errors import UserError
from recsys_data.training.baselines import files
from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.model import Ids
from recsys_data.training.baselines.parameters import Parameters, checked
from recsys_data.training.baselines.top import Sparse, entries, rows_at, top
from recsys_data.training.tables import RECOMMENDATIONS, codes_of_few, ids, ranks

# Scores that are held at once: 32 MB.
CELLS = 4_000_000


class MatrixModel(ABC):
    """Base of the models that score all items for a block of users."""

    NAME: ClassVar[str]
    PARAMETERS: ClassVar[type[Parameters]]
    STATE: ClassVar[tuple[str, ...]] = ()

    users: pa.Array
    items: pa.Array
    seen: Sparse
    popularity: np.ndarray

    def __init__(self, **parameters: Any) -> None:
        """Make a model that is not fitted.

        Raises:
            UserError: there is no such parameter, or its value makes no sense.
        """
        self.settings = checked(self.NAME, self.PARAMETERS, parameters)

    @property
    def name(self) -> str:
        return self.NAME

    @property
    def parameters(self) -> dict[str, Any]:
        return msgspec.json.decode(msgspec.json.encode(self.settings))

    def fit(self, interactions: pa.Table) -> Self:
        """Learn from interactions, on one thread; see `Model`."""
        data = Encoded.of(interactions)
        self.users, self.items = data.users, data.items
        self.seen = data.matrix()
        self.popularity = np.asarray(self.seen.sum(axis=0)).ravel()
        with one_thread():
            self._learn(data)
        return self

    def recommend(self, user_ids: Ids, n: int, *, exclude_seen: bool = True, candidates: Ids | None = None) -> pa.Table:
        """The best items for each user, a block of users at a time; see `Model`."""
        self._require(n)
        wanted = ids(user_ids, "users").unique()
        code = codes_of_few(wanted, self.users)
        barred = None if candidates is None else ~self._among(candidates)

        def blocks() -> Iterator[np.ndarray]:
            for place in self._places(len(wanted)):
                scores = self._suitability(wanted.take(pa.array(place)), code[place])
                if exclude_seen:
                    known = np.flatnonzero(code[place] >= 0)
                    row, column, _ = entries(rows_at(self.seen, code[place][known]))
                    scores[known[row], column] = -np.inf
                if barred is not None:
                    scores[:, barred] = -np.inf
                yield scores

        return self._best(wanted, blocks(), n)

    def similar(self, item_ids: Ids, n: int) -> pa.Table:
        """The items most like each item, a block of items at a time; see `Model`."""
        self._require(n)
        asked = ids(item_ids, "items").unique()
        code = codes_of_few(asked, self.items)
        wanted, code = asked.filter(pa.array(code >= 0)), code[code >= 0]

        def blocks() -> Iterator[np.ndarray]:
            for place in self._places(len(wanted)):
                found = self._alike(code[place])
                scores = found if isinstance(found, np.ndarray) else np.full((len(place), len(self.items)), -np.inf)
                if not isinstance(found, np.ndarray):
                    row, column, value = entries(found)
                    scores[row, column] = value
                scores[np.arange(len(place)), code[place]] = -np.inf
                yield scores

        return self._best(wanted, blocks(), n)

    def save(self, folder: Path) -> None:
        """Write the model; see `Model`."""
        self._require(1)
        state = {name: getattr(self, name) for name in ("users", "items", "seen", "popularity", *self.STATE)}
        files.save(folder, self.NAME, self.parameters, state)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model; see `Model`."""
        parameters, state = files.load(folder, cls.NAME)
        model = cls(**parameters)
        for name, value in state.items():
            setattr(model, name, value)
        return model

    @abstractmethod
    def _learn(self, data: Encoded) -> None:
        """Set the attributes of `STATE`; `users`, `items`, `seen` and `popularity` are there."""

    @abstractmethod
    def _scores(self, users: np.ndarray) -> np.ndarray | Sparse:
        """How well all items suit known users.

        Returns:
            Users x items: a new dense array, a row of NaN for a user of whom nothing is known; or a sparse one where
            only values above 0 say anything, and popular items follow.
        """

    @abstractmethod
    def _alike(self, items: np.ndarray) -> np.ndarray | Sparse:
        """How alike all items are to known items; items x items, as `_scores`. Others than sparse values are not."""

    def _suitability(self, user_ids: pa.Array, users: np.ndarray) -> np.ndarray:
        """The scores of all items for users, of whom some are unknown (-1), as a new array."""
        known = np.flatnonzero(users >= 0)
        found = self._scores(users[known])
        if isinstance(found, np.ndarray):
            says = ~np.isnan(found).any(axis=1)
            if len(known) == len(users) and says.all():
                return found
            known, found = known[says], found[says]
        return self._filled(found, known, len(users))

    def _filled(self, found: np.ndarray | Sparse, known: np.ndarray, count: int) -> np.ndarray:
        """Scores of `count` users: those found for the users at `known`, then the popular items."""
        # From -1 to below 0, in the order of popularity: after all that a model knows something about.
        behind = self.popularity / (1 + self.popularity.max(initial=0)) - 1
        scores = np.repeat(behind[None, :], count, axis=0)
        if isinstance(found, np.ndarray):
            scores[known] = found
        else:
            row, column, value = entries(found)
            says = value > 0
            scores[known[row[says]], column[says]] = value[says]
        return scores

    def _among(self, item_ids: Ids) -> np.ndarray:
        """Which of the items are given; ids that are unknown do not matter."""
        found = codes_of_few(ids(item_ids, "candidates"), self.items)
        mask = np.zeros(len(self.items), dtype=bool)
        mask[found[found >= 0]] = True
        return mask

    def _places(self, count: int) -> Iterator[np.ndarray]:
        """Blocks of the numbers from 0 to `count`."""
        block = max(1, CELLS // max(1, len(self.items)))
        return (np.arange(first, min(first + block, count)) for first in range(0, count, block))

    def _best(self, wanted: pa.Array, blocks: Iterator[np.ndarray], n: int) -> pa.Table:
        """The top n of blocks of scores, as recommendations."""
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        first = 0
        with one_thread():
            for scores in blocks if len(self.items) else ():
                rows, columns = top(scores, n)
                parts.append((rows + first, columns, scores[rows, columns]))
                first += len(scores)
        none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        row, item, score = (np.concatenate(one) for one in zip(none, *parts, strict=True))
        columns = {
            "query_id": wanted.take(pa.array(row, pa.int64())),
            "item_id": self.items.take(pa.array(item, pa.int64())),
            "score": pa.array(score, pa.float64()),
            "rank": pa.array(ranks(row), pa.int32()),
        }
        return pa.table(columns, schema=RECOMMENDATIONS)

    def _require(self, n: int) -> None:
        if not hasattr(self, "users"):
            raise UserError(f"The model {self.NAME} is not fitted. Call `fit` with interactions, or `load` one.")
        if n < 1:
            raise UserError(f"{n} items were asked for. Ask for at least 1.")


def one_thread() -> Any:
    """Linear algebra on one thread: how sums are split among several changes their last bits."""
    return _linear_algebra().limit(limits=1, user_api="blas")


@cache
def _linear_algebra() -> Any:
    """The libraries whose threads are limited, found once: that takes longer than to score the items for a user."""
    # Only those that are loaded are found, and SciPy has one of its own.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
