"""Rows that were taken out of a table on purpose: how many and why, and what is still on its way elsewhere.

It is one property of the table, changed in the same commit as the rows. The ledger counts what was stored and never
goes back; rows that are there = rows of the ledger - rows removed. A property of its own, because writers that hold
the ledger in memory replace it as a whole.
"""

import fcntl
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from recsys_data.storage.commit import Change, compare_and_set, expire_old_snapshots, live_files

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

PROPERTY = "recsys_data.removed"
# Folder of outbox files below that of the lake.
OUTBOX = "replay"


class Outbox(msgspec.Struct, frozen=True, array_like=True):
    """A file of lines that have left the table and are to be appended to the event log.

    Attributes:
        last_size: bytes of its last line, without the newline.
        last_digest: SHA-256 of that line. Lines are appended in order, so that all of them are in the log if it is.
        log_ends: where each log partition ended before the first of them was appended.
    """

    file: str
    lines: int
    last_size: int = 0
    last_digest: str = ""
    log_ends: dict[int, int] = {}


class Removed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Running counts since the table was created.

    Attributes:
        replayed: dead letters that went back to the event log.
        discarded: dead letters that somebody gave up.
        retired: rows older than the contract keeps them.
        retired_before: all days before this one were retired, or never there.
        outbox: what was replayed but may not be in the event log yet.
        token: tells the commit that wrote this from one of another process that says the same.
    """

    replayed: int = 0
    discarded: int = 0
    retired: int = 0
    retired_before: date | None = None
    outbox: tuple[Outbox, ...] = ()
    token: str = ""

    @property
    def rows(self) -> int:
        """How many rows are no longer there."""
        return self.replayed + self.discarded + self.retired

    @property
    def waiting(self) -> int:
        """How many lines may not be in the event log yet."""
        return sum(box.lines for box in self.outbox)


def read_removed(table: "Table") -> Removed:
    """As of the table's loaded state; zeros for a table that nothing was taken out of."""
    text = table.properties.get(PROPERTY)
    return msgspec.json.decode(text, type=Removed) if text else Removed()


def remove(
    table: "Table",
    gone: Iterable["DataFile"],
    left: Sequence["DataFile"],
    count: Callable[[Removed], Removed],
) -> bool:
    """Put the files `left` in the place of those `gone`, and count what was removed, in one commit.

    Returns:
        False if one of the files is no longer part of the table, for somebody else has rewritten it; nothing changed.

    Raises:
        Transient: the catalog cannot be written now; nothing changed.
    """
    token = uuid.uuid4().hex
    old = {file.file_path: file for file in gone}

    def delete(table: "Table") -> Change | bool:
        stored = read_removed(table)
        if stored.token == token:
            return True
        if old and not live_files(table).issuperset(old):
            return False
        removed = msgspec.structs.replace(count(stored), token=token)
        return Change(list(old.values()), left, {PROPERTY: msgspec.json.encode(removed).decode()})

    if not compare_and_set(table, delete, fcntl.LOCK_EX):
        return False
    expire_old_snapshots(table)
    return True
