"""The most popular items: the sum of the weights of their interactions, halved with each half-life of their age."""

import numpy as np

from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.matrix_model import MatrixModel
from recsys_data.training.baselines.parameters import Parameters, Positive


class PopularParameters(Parameters, frozen=True):
    """Parameters of `Popular`.

    Attributes:
        half_life_days: by the age at the last interaction; None: all interactions count alike.
    """

    half_life_days: Positive | None = None


class Popular(MatrixModel):
    """The same items for everybody, but for those that a user has seen."""

    NAME = "popular"
    PARAMETERS = PopularParameters
    settings: PopularParameters

    def _learn(self, data: Encoded) -> None:
        decayed = data.matrix(data.decayed(self.settings.half_life_days))
        self.popularity = np.asarray(decayed.sum(axis=0)).ravel()

    def _suitability(self, user_ids: object, users: np.ndarray) -> np.ndarray:
        return self._scores(users)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.repeat(np.asarray(self.popularity)[None, :], len(users), axis=0)

    def _alike(self, items: np.ndarray) -> np.ndarray:
        return self._scores(items)
