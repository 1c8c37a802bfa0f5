"""Matrix factorization by alternating least squares (Hu, Koren and Volinsky 2008, https://doi.org/10.1109/ICDM.2008.22).

Fitted by the package `implicit`, the extra `recsys-data[als]`, on one thread: its results depend on their number.
Factors are rounded to multiples of a power of two so large that sums of their products are exact: no score depends on
the order in which linear algebra adds, so neither on the other users of a block nor on threads.
"""

import math

import numpy as np

from recsys_data.errors import UserError
from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.matrix_model import MatrixModel
from recsys_data.training.baselines.parameters import Count, NotNegative, Parameters, Positive, Seed

# Whole numbers that 64-bit floats hold exactly have 53 bits; those of 32 bits have 24.
EXACT_BITS, STORED_BITS = 53, 24


class AlsParameters(Parameters, frozen=True):
    """Parameters of `Als`.

    Attributes:
        factors: of each user and item.
        regularization: of the factors.
        alpha: times the weight is the confidence in an interaction; that in a missing one is 1.
        iterations: over users and items.
        seed: of the factors at the beginning.
    """

    factors: Count = 64
    regularization: NotNegative = 1.0
    alpha: Positive = 1.0
    iterations: Count = 15
    seed: Seed = 0


class Als(MatrixModel):
    """Vectors of users and items, 32-bit floats, whose products are the scores."""

    NAME = "als"
    PARAMETERS = AlsParameters
    STATE = ("user_factors", "item_factors")
    settings: AlsParameters
    user_factors: np.ndarray
    item_factors: np.ndarray

    def _learn(self, data: Encoded) -> None:
        from implicit.cpu.als import AlternatingLeastSquares  # pyright: ignore[reportMissingImports]
        from implicit.recommender_base import ModelFitError  # pyright: ignore[reportMissingImports]
        from scipy import sparse

        if not self.seen.nnz:
            self.user_factors, self.item_factors = (
                np.zeros((len(ids), self.settings.factors), np.float32) for ids in (self.users, self.items)
            )
            return
        model = AlternatingLeastSquares(
            factors=self.settings.factors,
            regularization=self.settings.regularization,
            alpha=self.settings.alpha,
            iterations=self.settings.iterations,
            random_state=self.settings.seed,
            num_threads=1,
        )
        try:
            model.fit(sparse.csr_matrix(self.seen.astype(np.float32)), show_progress=False)
        except ModelFitError as error:
            raise UserError(
                f"ALS found no factors ({error}): the weights, of at most {self.seen.data.max():g}, may be "
                "too large for single precision. Make them smaller, or raise regularization."
            ) from None
        self.user_factors, self.item_factors = _rounded(model.user_factors), _rounded(model.item_factors)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        scores = _products(np.asarray(self.user_factors)[users], np.asarray(self.item_factors))
        scores[np.diff(self.seen.indptr)[users] == 0] = np.nan
        return scores

    def _alike(self, items: np.ndarray) -> np.ndarray:
        factors = np.asarray(self.item_factors)
        length = np.linalg.norm(factors.astype(float), axis=1, keepdims=True)
        unit = _rounded(np.divide(factors, length, out=np.zeros(factors.shape), where=length > 0))
        return _products(unit[items], unit)


def _rounded(factors: np.ndarray) -> np.ndarray:
    """Rounded so that the product of two rows is exact as a 64-bit float; each number is one of 32 bits."""
    bits = min(STORED_BITS, (EXACT_BITS - math.ceil(math.log2(factors.shape[1]))) // 2)
    # The largest is below 2 ** exponent.
    exponent = int(np.frexp(np.abs(factors).max(initial=0))[1])
    return np.ldexp(np.rint(np.ldexp(factors.astype(float), bits - exponent)), exponent - bits).astype(np.float32)


def _products(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows.astype(float) @ columns.astype(float).T
