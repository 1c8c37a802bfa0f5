"""The ledger of a stream table: how far it has read each log partition, and what became of the lines.

It is one table property, changed in the same commit as the data, and the only truth about the position.
Snapshot properties would vanish when snapshots expire.
"""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pyiceberg.table import Table

PROPERTY = "recsys_data.ledger"
# Enough commits for a picture of the last minutes without making every metadata file large.
LATENCIES_KEPT = 40


class Latency(msgspec.Struct, frozen=True, array_like=True):
    """How long the events of one commit took from receipt until they could be queried.

    Attributes:
        committed_at: seconds since 1970 at which the commit was visible.
        events: how many events had a receipt time.
        deciles: seconds, at 5 %, 15 % ... 95 % of them; shape (10,).
    """

    committed_at: float
    events: int
    deciles: tuple[float, ...]


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """Running counts since the table was created, over the log lines before `positions`.

    Attributes:
        positions: next position to read, by log partition.
        read: lines read; equals accepted + duplicates + dead_letters.
        accepted: lines stored as events.
        duplicates: lines whose event was already stored.
        dead_letters: lines that broke a contract.
        redacted: accepted lines from which something was removed for want of consent.
        rows: rows of this table.
        latencies: receipt to queryable, of the last commits; kept by the first stream table only.
        token: tells the commit that wrote this from one of another writer that says the same.
    """

    positions: dict[int, int] = {}
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    redacted: int = 0
    rows: int = 0
    latencies: tuple[Latency, ...] = ()
    token: str = ""

    @property
    def balanced(self) -> bool:
        return self.read == self.accepted + self.duplicates + self.dead_letters


def read_ledger(table: "Table") -> Ledger:
    """The ledger as of the table's loaded state; an empty one for a table that was never fed."""
    text = table.properties.get(PROPERTY)
    return msgspec.json.decode(text, type=Ledger) if text else Ledger()
