"""Models that add up the similarities between the items of a user and all others."""

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys_data.training.baselines.matrix_model import CELLS, MatrixModel
from recsys_data.training.baselines.top import Sparse, keep_top, rows_at, weighted


class NeighbourModel(MatrixModel):
    """Base of the models of item similarity.

    Attributes:
        profile: users x items, how much the user cares for the item.
        similarity: items x items: of the user's items (rows) with others (columns).
    """

    STATE = ("profile", "similarity")
    profile: Sparse
    similarity: Sparse

    def _scores(self, users: np.ndarray) -> Sparse:
        return weighted(rows_at(self.profile, users), self.similarity)

    def _alike(self, items: np.ndarray) -> Sparse:
        return rows_at(self.similarity, items)


def product(left: Sparse, right: Sparse, adjust: Callable[[Any, np.ndarray], None], n: int | None) -> Sparse:
    """`left` times `right`, a block of rows at a time, of which the largest `n` values of each row are kept.

    Args:
        left: rows x k.
        right: k x columns.
        adjust: changes the values of a block in place, given the block and the numbers of its rows.
        n: how many to keep; None: all.

    Returns:
        rows x columns, without zeros.
    """
    from scipy import sparse

    parts = []
    block = max(1, CELLS // max(1, right.shape[1]))
    for first in range(0, left.shape[0], block):
        rows = np.arange(first, min(first + block, left.shape[0]))
        some: Any = sparse.csr_array(left[rows] @ right)
        some.sort_indices()
        adjust(some, rows)
        some.eliminate_zeros()
        parts.append(some if n is None else keep_top(some, n))
    if not parts:
        return sparse.csr_array((left.shape[0], right.shape[1]), dtype=float)
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def binary(matrix: Sparse) -> Sparse:
    """1.0 for each value that is stored."""
    found: Any = matrix.copy()
    found.data = np.ones(len(found.data))
    return found


def transposed(matrix: Sparse) -> Sparse:
    """Rows for columns, with sorted indices."""
    from scipy import sparse

    found = sparse.csr_array(matrix.T.tocsr())
    found.sort_indices()
    return found


def rows_of(block: Any) -> np.ndarray:
    """The row, in the block, of each stored value."""
    return np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
