"""What items of the online store in DynamoDB mean: which value is committed as of a state.

>>> item = {"batch": 5, "value": b"new", "before": b"old"}
>>> [State(committed=committed, void=void).value(item) for committed, void in [(5, ()), (4, ()), (6, (5,))]]
[b'new', b'old', b'old']
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class State:
    """The item that says what is committed.

    Attributes:
        generation: what the keys of values begin with; None: there are none.
        committed: number of the newest committed batch.
        upcoming: the number that the next batch takes.
        void: numbers up to `committed` that were taken and never committed.
        position: of the committed batch.
        building: the generation that the newest rebuild fills.
    """

    generation: bytes | None = None
    committed: int = 0
    upcoming: int = 1
    void: tuple[int, ...] = ()
    position: bytes | None = None
    building: bytes | None = None

    def is_committed(self, batch: int) -> bool:
        return batch <= self.committed and batch not in self.void

    def value(self, item: Mapping[str, Any]) -> bytes | None:
        """What of an item is committed."""
        return item.get("value" if self.is_committed(item["batch"]) else "before")


def typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as the API takes them, without those that are None."""

    def one(value: Any) -> dict[str, Any]:
        if isinstance(value, bytes):
            return {"B": value}
        return {"N": str(value)} if isinstance(value, int) else {"NS": [str(number) for number in value]}

    return {name: one(value) for name, value in values.items() if value is not None}


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as Python's values."""

    def one(given: Mapping[str, Any]) -> Any:
        if "B" in given:
            return bytes(given["B"])
        return int(given["N"]) if "N" in given else tuple(int(number) for number in given["NS"])

    return {name: one(given) for name, given in item.items()}
