"""The ledger of a stream table: how far it has read each log partition, and what became of the lines.

It is one table property, changed in the same commit as the data, and the only truth about the position.
Snapshot properties would vanish when snapshots expire. What a ledger counts of the log is the same in every stream
table, because a line is decided once (see `intent.py`); `rows`, `latencies` and `index_commits` are a table's own.

Rows that were deleted on purpose are a second property. The ledger counts what was stored and never goes back; rows
that are there = rows of the ledger - rows deleted.
"""

from datetime import date
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pyiceberg.table import Table

LEDGER = "recsys_data.ledger"
# A property of its own, because writers that hold the ledger in memory replace it as a whole.
DELETIONS = "recsys_data.removed"
ACCEPTED_LOSSES = "recsys_data.accepted-losses"
# Folder of outbox files below that of the lake.
OUTBOX = "replay"
# Enough commits for a picture of the last minutes without making every metadata file large.
LATENCIES_KEPT = 40
# Commits at which a deduplication index may have been saved. An index of an earlier one is built again.
INDEX_COMMITS_KEPT = 64


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


class Outcomes(msgspec.Struct, frozen=True, array_like=True):
    """Running counts of one log partition, over its lines from `start` on."""

    start: int
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0


class LostRange(msgspec.Struct, frozen=True, array_like=True):
    """Positions `[start, end)` of a log partition that the log no longer had when they were to be read."""

    partition: int
    start: int
    end: int


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """Running counts since the lake was created, over the log lines before `positions`.

    Attributes:
        positions: next position to read, by log partition.
        read: lines read; equals accepted + duplicates + dead_letters.
        accepted: lines stored as events.
        duplicates: lines whose event was already stored.
        dead_letters: lines that broke a contract.
        redacted: accepted lines from which something was removed for want of consent.
        rows: rows of this table.
        latencies: receipt to queryable, of the last commits; kept by the main table only.
        partitions: counts by log partition; in a lake of an earlier version they begin with its upgrade.
        lost: ranges of the log that were missing when they were to be read.
        index_commits: tokens of recent commits at which a deduplication index may have been saved; kept by the main
            table only.
        intent: name of the intent that the last lines were decided by; empty before the first.
        intents: by log partition, the intent that its last lines were decided by. Consumers of other partitions commit
            in between, each on top of the others.
        token: identifies the commit that wrote this ledger.
    """

    positions: dict[int, int] = {}
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    redacted: int = 0
    rows: int = 0
    latencies: tuple[Latency, ...] = ()
    partitions: dict[int, Outcomes] = {}
    lost: tuple[LostRange, ...] = ()
    index_commits: tuple[str, ...] = ()
    intent: str = ""
    intents: dict[int, str] = {}
    token: str = ""

    @property
    def balanced(self) -> bool:
        return self.read == self.accepted + self.duplicates + self.dead_letters


def moved_partitions(base: Ledger, ledger: Ledger) -> list[int]:
    """The log partitions whose lines a commit decides, given the ledger before and after it."""
    return [partition for partition, name in ledger.intents.items() if base.intents.get(partition) != name]


def follows(stored: Ledger, base: Ledger, ledger: Ledger) -> bool:
    """Whether the commit from `base` to `ledger` can be made on top of `stored`: nobody has decided the same lines."""
    if stored.token == base.token:
        return True
    moved = moved_partitions(base, ledger)
    if not moved:
        # It decides nothing, unless its intent was written by an earlier version.
        return ledger.intent == base.intent
    return all(
        stored.intents.get(one) == base.intents.get(one) and stored.positions.get(one) == base.positions.get(one)
        for one in moved
    )


def is_made(stored: Ledger, base: Ledger, ledger: Ledger) -> bool:
    """Whether the commit from `base` to `ledger` is part of `stored`."""
    moved = moved_partitions(base, ledger)
    same = bool(moved) and all(stored.intents.get(one) == ledger.intents[one] for one in moved)
    return stored.token == ledger.token or same


def rebased(stored: Ledger, base: Ledger, ledger: Ledger) -> Ledger:
    """The change from `base` to `ledger`, of some log partitions, on top of what others have committed meanwhile."""
    moved = moved_partitions(base, ledger)
    counts = ("read", "accepted", "duplicates", "dead_letters", "redacted", "rows")
    latencies = [one for one in ledger.latencies if one not in base.latencies]
    return msgspec.structs.replace(
        stored,
        **{name: getattr(stored, name) + getattr(ledger, name) - getattr(base, name) for name in counts},
        positions={**stored.positions, **{one: ledger.positions[one] for one in moved}},
        partitions={**stored.partitions, **{one: ledger.partitions[one] for one in moved if one in ledger.partitions}},
        lost=(*stored.lost, *ledger.lost[len(base.lost) :]),
        latencies=(*stored.latencies, *latencies)[-LATENCIES_KEPT:],
        index_commits=tuple(dict.fromkeys((*stored.index_commits, *ledger.index_commits)))[-INDEX_COMMITS_KEPT:],
        intent=ledger.intent,
        intents={**stored.intents, **{one: ledger.intents[one] for one in moved}},
        token=ledger.token,
    )


def read_ledger(table: "Table") -> Ledger:
    """The ledger as of the table's loaded state; an empty one for a table that was never fed."""
    text = table.properties.get(LEDGER)
    return msgspec.json.decode(text, type=Ledger) if text else Ledger()


def accepted_losses(table: "Table") -> int:
    """As of the loaded state of the main table: so many of `Ledger.lost`, the oldest ones, were accepted."""
    return int(table.properties.get(ACCEPTED_LOSSES, 0))


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


class Deletions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Running counts since the table was created.

    Attributes:
        replayed: dead letters that went back to the event log.
        discarded: dead letters that were discarded.
        expired: rows older than the contract keeps them.
        expired_before: all days before this one have expired, or were never there.
        outbox: what was replayed but may not be in the event log yet.
        token: distinguishes the commit that wrote this from one of another process that says the same.
    """

    replayed: int = 0
    discarded: int = 0
    expired: int = msgspec.field(default=0, name="retired")
    expired_before: date | None = msgspec.field(default=None, name="retired_before")
    outbox: tuple[Outbox, ...] = ()
    token: str = ""

    @property
    def rows(self) -> int:
        """How many rows were deleted."""
        return self.replayed + self.discarded + self.expired

    @property
    def waiting(self) -> int:
        """How many lines may not be in the event log yet."""
        return sum(box.lines for box in self.outbox)


def read_deletions(table: "Table") -> Deletions:
    """As of the table's loaded state; zeros for a table that nothing was taken out of."""
    text = table.properties.get(DELETIONS)
    return msgspec.json.decode(text, type=Deletions) if text else Deletions()
