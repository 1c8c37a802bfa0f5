"""SAR, the Simple Algorithm for Recommendation of Microsoft's recommenders (https://github.com/recommenders-team/recommenders).

Affinity of a user for an item: the sum of the weights, each halved for each half-life of its age. Similarity of items:
how many users have both, as a count, or as the Jaccard index or lift. The score is affinity times similarity, and is
not normalised. An item is also similar to itself, as in the reference.
"""

from typing import Any, Literal

import numpy as np

from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.neighbours import NeighbourModel, binary, product, rows_of, transposed
from recsys_data.training.baselines.parameters import Count, Parameters, Positive


class SarParameters(Parameters, frozen=True):
    """Parameters of `Sar`.

    Attributes:
        similarity: `jaccard`, `lift` or `counts`.
        half_life_days: of the affinity, by the age at the last interaction; None: no decay.
        min_cooccurrence: pairs of items that fewer users have are not similar.
        neighbours: how many similar items of each item are kept; None: all, as in the reference.
    """

    similarity: Literal["jaccard", "lift", "counts"] = "jaccard"
    half_life_days: Positive | None = 30.0
    min_cooccurrence: Count = 1
    neighbours: Count | None = None


class Sar(NeighbourModel):
    """Items that occur with those of the user, recent ones counting more."""

    NAME = "sar"
    PARAMETERS = SarParameters
    settings: SarParameters

    def _learn(self, data: Encoded) -> None:
        has = binary(self.seen)
        by_item = transposed(has)
        users_of = np.asarray(by_item.sum(axis=1)).ravel()

        def compare(block: Any, items: np.ndarray) -> None:
            together = block.data
            together[together < self.settings.min_cooccurrence] = 0
            one, other = users_of[items[rows_of(block)]], users_of[block.indices]
            if self.settings.similarity == "jaccard":
                together /= one + other - together
            elif self.settings.similarity == "lift":
                together /= one * other

        self.profile = data.matrix(data.decayed(self.settings.half_life_days))
        self.similarity = product(by_item, has, compare, self.settings.neighbours)
