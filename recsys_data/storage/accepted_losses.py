"""How many of the lost ranges of a lake's ledger an operator has seen and accepted, so that they alarm no more."""

from typing import TYPE_CHECKING

from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.ledger import read_ledger

if TYPE_CHECKING:
    from pyiceberg.table import Table

PROPERTY = "recsys_data.accepted-losses"


def accepted_losses(table: "Table") -> int:
    """As of the loaded state of the main table: so many of `Ledger.lost`, the oldest ones, were accepted."""
    return int(table.properties.get(PROPERTY, 0))


def accept_losses(table: "Table") -> int:
    """Accept all lost ranges that the main table's ledger lists now; returns how many were new.

    Raises:
        Transient: others kept committing to the table.
    """
    known, lost = accepted_losses(table.refresh()), len(read_ledger(table).lost)

    def accept(table: "Table") -> Change | bool:
        return accepted_losses(table) >= lost or Change(properties={PROPERTY: str(lost)}, compared=False)

    compare_and_set(table, accept)
    return lost - known
