"""The best n of each row of a matrix, dense or sparse; equal values by descending column."""

from typing import Any, NamedTuple

import numpy as np

from recsys_data.training.tables import ranks

# A `scipy.sparse.csr_array`, whose types know neither its shape nor its values.
Sparse = Any


class Rows(NamedTuple):
    """As much of a sparse array as `entries` needs, which SciPy takes long to make of a single row."""

    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def rows_at(matrix: Sparse, rows: np.ndarray) -> Sparse:
    """The rows of a sparse array."""
    if len(rows) != 1:
        return matrix[rows]
    begin, end = matrix.indptr[rows[0]], matrix.indptr[rows[0] + 1]
    bounds = np.array([0, end - begin])
    return Rows((1, matrix.shape[1]), bounds, matrix.indices[begin:end], matrix.data[begin:end])


def weighted(weights: Sparse, matrix: Sparse) -> Sparse:
    """The product of sparse arrays; of a single row it is added up in the same order, without SciPy."""
    if not isinstance(weights, Rows):
        return weights @ matrix
    begins, ends = matrix.indptr[weights.indices], matrix.indptr[weights.indices + 1]
    parts = [slice(begin, end) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    if not parts:
        return Rows((1, matrix.shape[1]), np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros(0))
    indices = np.concatenate([matrix.indices[part] for part in parts])
    values = np.concatenate([matrix.data[part] for part in parts])
    sums = np.bincount(indices, values * np.repeat(weights.data, ends - begins), matrix.shape[1])
    columns = np.flatnonzero(sums)
    return Rows((1, matrix.shape[1]), np.array([0, len(columns)]), columns, sums[columns])


def top(scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the `n` largest values of each row, in that order; -inf is never among them.

    >>> [part.tolist() for part in top(np.array([[1.0, 3.0, 3.0], [-np.inf, 0.0, -np.inf]]), 2)]
    [[0, 0, 1], [2, 1, 1]]
    """
    width = scores.shape[1]
    if n < width:
        # The value, unlike the place, of the n-th largest is the same for any order.
        least = np.partition(scores, width - n, axis=1)[:, width - n, None]
        chosen = (scores >= least) & (scores > -np.inf)
    else:
        chosen = scores > -np.inf
    rows, columns = np.nonzero(chosen)
    return best_of_rows(rows, columns, scores[rows, columns], n)


def best_of_rows(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The `n` largest values of each row, given as places and values in any order."""
    order = np.lexsort((-columns, -values, rows))
    rows, columns = rows[order], columns[order]
    best = ranks(rows) <= n
    return rows[best], columns[best]


def entries(matrix: Sparse) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and values of what is stored, by row."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return rows, matrix.indices.astype(np.int64), matrix.data


def keep_top(matrix: Sparse, n: int) -> Sparse:
    """The matrix with the `n` largest stored values of each row; its indices are sorted."""
    from scipy import sparse

    rows, columns, values = entries(matrix)
    # Sorting is for the few that may stay: a partition of each long row finds them in linear time.
    least = np.full(matrix.shape[0], -np.inf)
    bounds = matrix.indptr
    for row in np.flatnonzero(np.diff(bounds) > n):
        least[row] = np.partition(values[bounds[row] : bounds[row + 1]], -n)[-n]
    stays = values >= least[rows]
    rows, columns, values = rows[stays], columns[stays], values[stays]
    order = np.lexsort((-columns, -values, rows))
    kept = order[ranks(rows[order]) <= n]
    found = sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=matrix.shape)
    found.sort_indices()
    return found
