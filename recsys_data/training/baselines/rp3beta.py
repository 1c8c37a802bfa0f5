"""RP3beta: random walks user -> item -> user -> item, popular items counting less (Paudel et al. 2017, https://doi.org/10.1145/2955101).

p(i -> j) = sum over users of P(i -> u)^alpha P(u -> j)^alpha, divided by (how many users j has)^beta.
"""

from typing import Any

import numpy as np

from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.neighbours import NeighbourModel, binary, product, rows_of, transposed
from recsys_data.training.baselines.parameters import Count, NotNegative, Parameters, Positive


class RP3BetaParameters(Parameters, frozen=True):
    """Parameters of `RP3Beta`.

    Attributes:
        neighbours: of each item, how many items that a walk reaches are kept.
        alpha: power of the probabilities of a step.
        beta: power of the popularity by which the probability of an item is divided.
    """

    neighbours: Count = 100
    alpha: Positive = 1.0
    beta: NotNegative = 0.6


class RP3Beta(NeighbourModel):
    """Where random walks from the user's items lead."""

    NAME = "rp3beta"
    PARAMETERS = RP3BetaParameters
    settings: RP3BetaParameters

    def _learn(self, data: Encoded) -> None:
        self.profile = binary(self.seen)
        by_item = transposed(self.profile)
        users_of = np.asarray(by_item.sum(axis=1)).ravel()
        less = np.power(np.maximum(users_of, 1), -self.settings.beta)

        def to_item(block: Any, items: np.ndarray) -> None:
            block.data *= less[block.indices]
            block.data[items[rows_of(block)] == block.indices] = 0

        to_user, from_user = (_step(one, self.settings.alpha) for one in (by_item, self.profile))
        self.similarity = product(to_user, from_user, to_item, self.settings.neighbours)


def _step(matrix: Any, power: float) -> Any:
    """Each row divided by its sum, to a power."""
    found = matrix.copy()
    total = np.asarray(found.sum(axis=1)).ravel()
    found.data = (found.data / total[rows_of(found)]) ** power
    return found
