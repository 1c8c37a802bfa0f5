"""What a source gives: the columns that are asked for, and one consistent read of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from recsys_data.contracts.servers import Server
from recsys_data.errors import UserError
from recsys_data.sources.files.patterns import DAY
from recsys_data.sources.locations import named

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ColumnRequest:
    """One column that is asked for.

    Attributes:
        name: column of the contract.
        type: logical type.
        source: name in the source; in JSON a dotted path.
    """

    name: str
    type: str
    source: str


@dataclass(frozen=True, slots=True)
class Extract:
    """A state that is being read.

    Attributes:
        as_of: UTC; when the state was true: the moment of the consistent read, or the end of a folder's day.
        columns: the wanted columns that this source has, in the order of the batches.
        batches: the rows, typed, at most about 100,000 a batch; the last column `_problems`, a list of texts, is
            NULL for a clean row, else it holds "column: found …; expected …", and such columns are NULL.
    """

    as_of: datetime
    columns: tuple[str, ...]
    batches: "Iterator[pa.RecordBatch]"


def is_live(server: Server) -> bool:
    """Whether the server knows only today's state."""
    return DAY not in server.location


def present_of(server: Server, wanted: "Sequence[ColumnRequest]", found: Sequence[str]) -> "list[ColumnRequest]":
    """The wanted columns among those found.

    Raises:
        UserError: one that the contract names for this server is missing; lists what was found.
    """
    there = set(found)
    for column in wanted:
        if column.name in server.columns and column.source not in there:
            raise UserError(
                f"{named(server)} has no column {column.source}, which the contract names for {column.name}. "
                f"It has {', '.join(found) or 'none'}. Fix `columns` of the server."
            )
    return [column for column in wanted if column.source in there]


PROBLEMS = "_problems"


# A column of this name in what a reader gives says what is wrong with the whole row.
ROW = "_row"
