"""Random items: what any model has to beat. A score is a hash of the user, the item and the seed, from 0 to 1.

So a user gets the same items in any company, unknown users too.
"""

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from recsys_data.training.baselines.encoded import Encoded
from recsys_data.training.baselines.matrix_model import MatrixModel
from recsys_data.training.baselines.parameters import Parameters, Seed


class RandomParameters(Parameters, frozen=True):
    """Parameters of `RandomItems`."""

    seed: Seed = 0


class RandomItems(MatrixModel):
    """Other items for every user."""

    NAME = "random"
    PARAMETERS = RandomParameters
    STATE = ("hashes",)
    settings: RandomParameters
    hashes: np.ndarray

    def _learn(self, data: Encoded) -> None:
        self.hashes = self._hashed(data.items)

    def _suitability(self, user_ids: pa.Array, users: np.ndarray) -> np.ndarray:
        return self._uniform(self._hashed(user_ids))

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self._uniform(self._hashed(self.users.take(pa.array(users))))

    def _alike(self, items: np.ndarray) -> np.ndarray:
        return self._uniform(np.asarray(self.hashes)[items])

    def _hashed(self, ids: pa.Array) -> np.ndarray:
        salt = self.settings.seed.to_bytes(8, "little")
        digests = (blake2b(one.encode(), digest_size=8, salt=salt).digest() for one in ids.to_pylist())
        return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)

    def _uniform(self, hashes: np.ndarray) -> np.ndarray:
        """Hashes x items, mixed by the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
        mixed = hashes[:, None] * np.uint64(0x9E3779B97F4A7C15) ^ np.asarray(self.hashes)[None, :]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64
