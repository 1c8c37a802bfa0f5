"""Item-based nearest neighbours: cosine similarity with shrinkage (Sarwar et al. 2001, https://doi.org/10.1145/371920.372071).

sim(i, j) = x_i . x_j / (|x_i| |x_j| + shrinkage), x being the weights of all users for an item. Of each item the
nearest neighbours count; a user's score of an item is the sum of their similarities times the user's weights.
"""

from typing import Any

import numpy as np

from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.neighbours import NeighbourModel, product, rows_of, transposed
from recsys_data.training.baselines.parameters import Count, NotNegative, Parameters


class ItemKnnParameters(Parameters, frozen=True):
    """Parameters of `ItemKnn`.

    Attributes:
        neighbours: of each item.
        shrinkage: added to the product of the norms: pairs with little support count less.
    """

    neighbours: Count = 100
    shrinkage: NotNegative = 10.0


class ItemKnn(NeighbourModel):
    """Items like those of the user."""

    NAME = "item_knn"
    PARAMETERS = ItemKnnParameters
    settings: ItemKnnParameters

    def _learn(self, data: Encoded) -> None:
        by_item = transposed(self.seen)
        norm = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())

        def cosine(block: Any, items: np.ndarray) -> None:
            row = rows_of(block)
            block.data /= norm[items[row]] * norm[block.indices] + self.settings.shrinkage
            block.data[items[row] == block.indices] = 0

        nearest = product(by_item, self.seen, cosine, self.settings.neighbours)
        # The neighbours are those of the item that is scored: its column.
        self.profile, self.similarity = self.seen, transposed(nearest)

    def _alike(self, items: np.ndarray) -> Any:
        return transposed(self.similarity[:, items])
