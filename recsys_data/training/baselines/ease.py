"""EASE: a linear model of items in closed form (Steck 2019, https://doi.org/10.1145/3308558.3313710).

B = I - P / diag(P), P the inverse of X'X + l2 I, X being 1 where a user has an item; a user's scores are x B. X'X is
dense: 10,000 items take 1.2 GB and half a minute on one processor, memory grows with the square of the items and time
with the cube.
"""

from typing import Any

import numpy as np

from recsys_data.errors import UserError
from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.matrix_model import CELLS, MatrixModel
from recsys_data.training.baselines.neighbours import binary, transposed
from recsys_data.training.baselines.parameters import Count, Parameters, Positive


class EaseParameters(Parameters, frozen=True):
    """Parameters of `Ease`.

    Attributes:
        l2: regularization.
        min_item_interactions: items of fewer users are left out and never recommended to known users.
        max_items: more items than this are refused, because of the memory.
    """

    l2: Positive = 300.0
    min_item_interactions: Count = 1
    max_items: Count = 30_000


class Ease(MatrixModel):
    """Weights between all pairs of items.

    Attributes:
        profile: users x items of the model, 1 where the user has the item.
        place: the code of each item of the model.
        weights: items of the model x items of the model, 32-bit floats.
    """

    NAME = "ease"
    PARAMETERS = EaseParameters
    STATE = ("profile", "place", "weights")
    settings: EaseParameters
    profile: Any
    place: np.ndarray
    weights: np.ndarray

    def _learn(self, data: Encoded) -> None:
        users_of = np.bincount(self.seen.indices, minlength=len(self.items))
        self.place = np.flatnonzero(users_of >= self.settings.min_item_interactions)
        count = len(self.place)
        if count > self.settings.max_items:
            raise UserError(
                f"EASE of {count:,} items needs {12 * count**2 / 1e9:,.1f} GB; at most {self.settings.max_items:,} "
                "are allowed (max_items). Leave out rare items with min_item_interactions, or use item_knn."
            )
        matrix: Any = binary(self.seen)[:, self.place]
        gram = np.zeros((count, count), order="F")
        by_item = transposed(matrix)
        block = max(1, CELLS // max(1, count))
        for first in range(0, count, block):
            gram[first : first + block] = (by_item[first : first + block] @ matrix).toarray()
        gram[np.diag_indices(count)] += self.settings.l2
        self.weights = _weights(_inverse(gram, self.settings.l2) if count else gram)
        self.profile = matrix.astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        rows = self.profile[users]
        scores = np.full((len(users), len(self.items)), -np.inf)
        scores[:, self.place] = rows @ np.asarray(self.weights)
        scores[np.diff(rows.indptr) == 0] = np.nan
        return scores

    def _alike(self, items: np.ndarray) -> np.ndarray:
        scores = np.full((len(items), len(self.items)), -np.inf)
        place = np.searchsorted(self.place, items)
        inside = np.isin(items, self.place)
        scores[np.ix_(inside, np.asarray(self.place))] = np.asarray(self.weights)[place[inside]]
        return scores


def _inverse(matrix: np.ndarray, l2: float) -> np.ndarray:
    """The upper triangle of the inverse of a symmetric matrix, which it replaces if it is in the order of Fortran."""
    from scipy.linalg import lapack

    found, problem = lapack.dpotrf(matrix, clean=0, overwrite_a=1)
    if not problem:
        found, problem = lapack.dpotri(found, overwrite_c=1)
    if problem:
        raise UserError(f"EASE cannot invert the matrix of these items with l2 = {l2}. Raise l2.")
    return found


def _weights(inverse: np.ndarray) -> np.ndarray:
    """B as 32-bit floats, a block of columns at a time, from the upper triangle of P."""
    count = len(inverse)
    diagonal = np.diag(inverse).copy()
    found = np.empty((count, count), np.float32)
    block = max(1, CELLS // max(1, count))
    for first in range(0, count, block):
        end = min(first + block, count)
        # P is symmetric: rows of a column from the upper triangle above the diagonal, from its mirror below.
        columns = inverse[:, first:end].copy()
        below = np.arange(count)[:, None] > np.arange(first, end)[None, :]
        columns = np.where(below, inverse[first:end].T, columns)
        found[:, first:end] = -columns / diagonal[first:end]
    found[np.diag_indices(count)] = 0
    return found
