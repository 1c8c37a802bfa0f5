"""Lines together with what the accounting must know of each, in arrays that are cheap to sort and to join."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Times in microseconds; outcome is an index into `truth.OUTCOMES`, kind into `behaviour.KINDS`; user and item are
# indices into the world, -1 for none.
FACTS = np.dtype(
    [
        ("arrival", np.int64),
        ("event", np.int64),
        ("user", np.int32),
        ("item", np.int32),
        ("kind", np.int8),
        ("outcome", np.int8),
        ("context", np.bool_),
        ("redacted", np.bool_),
        ("exposed", np.bool_),
        ("late", np.bool_),
    ],
    align=True,
)
# numpy copies records field by field, twenty times slower than as plain bytes, unless viewed as such.
BYTES = np.dtype(f"V{FACTS.itemsize}")


@dataclass(frozen=True, slots=True)
class Rows:
    """N lines; `lines` holds bytes, `facts` has the dtype `FACTS`, both have shape (N,)."""

    lines: npt.NDArray[np.object_]
    facts: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, part: slice) -> "Rows":
        return Rows(self.lines[part], self.facts[part])

    def take(self, index: npt.NDArray[np.int64]) -> "Rows":
        """A copy of the rows at `index`, in that order."""
        return Rows(self.lines.take(index), self.facts.take(index))

    def sorted(self) -> "Rows":
        """A copy by arrival; rows that arrive together stay in order."""
        return self.take(np.argsort(self.facts["arrival"], kind="stable"))

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """One after the other."""
        facts = np.concatenate([part.facts.view(BYTES) for part in parts]).view(FACTS)
        return Rows(np.concatenate([part.lines for part in parts]), facts)


def empty(size: int = 0) -> Rows:
    """Rows still to be filled; all facts are 0."""
    return Rows(np.empty(size, object), np.zeros(size, FACTS))
