"""Evolution of the storefront over time: everything follows from a seed and a moment, nothing is stored.

Each change has epochs of its own length and start for everyone it happens to, e.g. a price that holds for 40
days from a Tuesday morning on, the next one for as long. So any moment can be asked for, in any order.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

DAY = 86_400
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Epochs:
    """The epoch that each of N is in; arrays of shape (N,), times in seconds since 1970.

    Attributes:
        number: counts the epochs.
        began: when it began.
        length: how long it is, in seconds.
    """

    number: Ints
    began: Ints
    length: Ints


def hash_noise(seed: int, what: str, *numbers: Ints | int) -> Floats:
    """Uniform in [0, 1), the same whenever the same is asked; shape of the broadcast numbers (at least 1-d).

    >>> hash_noise(1, "price", np.arange(2), 7).round(3), hash_noise(1, "price", 1, 7).round(3)
    (array([0.122, 0.571]), array([0.571]))
    """
    mixed = _mix(np.array([seed ^ crc32(what.encode()) << 20], np.uint64))
    for number in numbers:
        mixed = _mix(mixed ^ np.asarray(number, np.int64).astype(np.uint64))
    return (mixed >> np.uint64(11)) / 2.0**53


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def epochs(seed: int, what: str, who: Ints, days: tuple[float, float], now: Ints | int) -> Epochs:
    """Where each of `who` is at `now` (of each or of all), in epochs of a length between `days` that differs by who."""
    low, high = (bound * DAY for bound in days)
    length = (low + (high - low) * hash_noise(seed, f"{what} length", who)).astype(np.int64)
    offset = (length * hash_noise(seed, f"{what} offset", who)).astype(np.int64)
    number = (now + offset) // length
    return Epochs(number, number * length - offset, length)
