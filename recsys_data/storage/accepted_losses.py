"""How many of the lost ranges of a lake's ledger an operator has seen and accepted, so that they alarm no more."""

from typing import TYPE_CHECKING

from recsys_data.errors import Transient
from recsys_data.storage.commit import ATTEMPTS
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
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import OperationalError

    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        known, lost = accepted_losses(table.refresh()), len(read_ledger(table).lost)
        if lost == known:
            return 0
        try:
            with table.transaction() as transaction:
                transaction.set_properties({PROPERTY: str(lost)})
        except (CommitFailedException, OperationalError) as error:
            failure = error
        else:
            return lost - known
    raise Transient(f"{'.'.join(table.name())} could not be changed in {ATTEMPTS} attempts: {failure}. Try again.")
