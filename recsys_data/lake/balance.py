"""Whether a stream table holds what its ledger says: rows are counted in the manifests, not in the ledger.

Rows of the ledger - rows that were taken out = rows that are there.
"""

from dataclasses import asdict, dataclass
from typing import Any

from recsys_data.lake.ledger import read_ledger
from recsys_data.lake.removed import read_removed
from recsys_data.lake.stats import days
from recsys_data.lake.tables import Lake


@dataclass(frozen=True, slots=True)
class Balance:
    """Lines by fate as the ledger counted them, rows as it counted them, rows taken out, and rows that are there."""

    read: int
    accepted: int
    duplicates: int
    dead_letters: int
    replayed: int
    discarded: int
    retired: int
    rows_counted: int
    rows_stored: int
    rows_expected: int | None

    @property
    def balanced(self) -> bool:
        return (
            self.read == self.accepted + self.duplicates + self.dead_letters
            and self.rows_counted == self.rows_stored + self.replayed + self.discarded + self.retired
            and self.rows_expected in (None, self.rows_counted)
        )

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def table_balance(lake: Lake, name: str) -> Balance:
    """The balance of one stream table as of now."""
    table = lake.table(name)
    ledger, removed = read_ledger(table), read_removed(table)
    return Balance(
        ledger.read,
        ledger.accepted,
        ledger.duplicates,
        ledger.dead_letters,
        removed.replayed,
        removed.discarded,
        removed.retired,
        rows_counted=ledger.rows,
        rows_stored=sum(day.rows for day in days(table).values()),
        # A dead letter is one row; an event may be a row of several datasets or, as context, of none.
        rows_expected=ledger.dead_letters if lake.contracts[name].stream == "rejects" else None,
    )
