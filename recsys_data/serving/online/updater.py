"""Keeps an online store equal to the lake: follows it by log position, and makes it anew where rows were deleted.

Data flow: rows of the lake from the positions of the store up to those of the tables' ledgers -> pieces -> merged with
those in the store -> one commit with the new positions. Compaction moves rows to other files and changes nothing.
Retention and erasure take rows away, which shows in the number of rows of a day; the store is then rebuilt beside its
readers. Run alone: `recsys-data online update`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from recsys_data.contracts.features.sources import sources_of
from recsys_data.days import MICROSECONDS_PER_DAY
from recsys_data.errors import Permanent, Transient
from recsys_data.features.lake import MERGED, FeatureSources, open_features, views_of
from recsys_data.features.rows import IDENTITIES
from recsys_data.serving.online import histories
from recsys_data.serving.online.gather import gather
from recsys_data.serving.online.layout import Layout, OnlineView, online_view
from recsys_data.serving.online.owners import changed
from recsys_data.serving.online.pieces import decoded, encoded, joined, settled
from recsys_data.serving.online.position import KEY, HistoryPosition, Position, StreamPosition, decode, encode
from recsys_data.serving.online_store.protocol import OnlineStore, Readable
from recsys_data.sql import quote
from recsys_data.storage.availability import read_failure
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.iceberg.manifest_stats import upper_bound
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.table import Table

    from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

# Rows that are applied together.
SLICE_ROWS = 200_000


class _Deleted(Exception):
    """Rows that were applied are not in the lake any more."""


@dataclass(frozen=True)
class Update:
    """What one call did.

    Attributes:
        rows: of streams that were applied.
        keys: that were written.
        rebuilt: why everything was made anew; None: it was not.
    """

    rows: int = 0
    keys: int = 0
    rebuilt: str | None = None


def online_views(lake: "Lake") -> tuple[dict[str, OnlineView], dict[str, str]]:
    """The views that are kept online, and why others are not, by name."""
    sources = sources_of(lake.contracts)
    found: dict[str, OnlineView] = {}
    left: dict[str, str] = {}
    for name, contract in views_of(lake).items():
        if contract.view is None:
            continue
        one = online_view(contract.view, sources)
        if isinstance(one, str):
            left[name] = one
        else:
            found[name] = one
    return found, left


class Updater:
    """Follows a lake.

    Args:
        lake: what is followed.
        store: what is kept equal to it.
        clock: microseconds since 1970.
        slice_rows: that are applied together, more or less.
    """

    def __init__(
        self,
        lake: "Lake",
        store: OnlineStore,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self._lake, self._store, self._clock, self._slice_rows = lake, store, clock, slice_rows
        self.views, self.left_out = online_views(lake)
        self._layouts = [layout for one in self.views.values() for layout in one.streams]
        self._digests = {name: one.digest for name, one in self.views.items()}
        names = [layout.name for layout in self._layouts]
        self._streams = [name for name in dict.fromkeys([*names, IDENTITIES]) if name in lake.contracts]
        self._seen: dict[str, int | None] = {}

    def update(self) -> Update:
        """Apply what is new in the lake.

        Raises:
            Transient: the store or the lake cannot be used now, or another process updates the store; nothing is lost.
            Permanent: as `rebuild`.
        """
        with _explained():
            return self._update()

    def _update(self) -> Update:
        tables = {name: self._lake.table(name) for name in [*self._streams, *self._histories()]}
        seen = {name: _snapshot(table) for name, table in tables.items()}
        stored = self._store.position()
        position = decode(stored)
        due = [name for name in self.views if self._due(name, position, seen)]
        if seen == self._seen and not due and stored is not None and position.digests == self._digests:
            return Update()
        if stored is None or position.digests != self._digests:
            why = "it was empty" if stored is None else "feature views changed"
            return replace(self.rebuild(), rebuilt=why)
        try:
            found = self._follow(tables, stored, due)
        except _Deleted as deleted:
            logger.warning("The online store is rebuilt: %s", deleted)
            return replace(self.rebuild(), rebuilt=str(deleted))
        self._seen = seen
        return found

    def rebuild(self) -> Update:
        """Make everything anew from the lake, beside readers.

        Raises:
            Transient: as `update`.
            Permanent: the lake has rows that no position in the event log leads to.
        """
        with _explained():
            return self._rebuild()

    def _rebuild(self) -> Update:
        tables = {name: self._lake.table(name) for name in [*self._streams, *self._histories()]}
        position = Position(self._digests, commit=decode(self._store.position()).commit + 1)
        rows = keys = 0
        with self._store.rebuild() as new:
            for changes, ahead, some in self._apply(tables, new, position):
                # A key that holds nothing any more holds an empty value.
                new.put((key, value or b"") for key, value in changes.items())
                position, rows, keys = ahead, rows + some, keys + len(changes)
            for name in self.views:
                if not self.views[name].streams:
                    changes, position = self._of_histories(name, tables, position, new)
                    new.put((key, value) for key, value in changes.items() if value is not None)
                    keys += len(changes)
            last = encode(position)
            new.put([(KEY, last)])
            new.publish(last)
        self._seen = {name: _snapshot(table) for name, table in tables.items()}
        return Update(rows, keys)

    def _follow(self, tables: "Mapping[str, Table]", stored: bytes, due: Sequence[str]) -> Update:
        rows = keys = 0
        position = decode(stored)
        for changes, after, some in self._apply(tables, self._store, position):
            stored, position = self._commit(stored, after, changes)
            rows, keys = rows + some, keys + len(changes)
        for name in due:
            changes, after = self._of_histories(name, tables, position, self._store)
            stored, position = self._commit(stored, after, changes)
            keys += len(changes)
        return Update(rows, keys)

    def _commit(
        self, expected: bytes, position: Position, changes: Mapping[bytes, bytes | None]
    ) -> tuple[bytes, Position]:
        position = msgspec.structs.replace(position, commit=position.commit + 1)
        after = encode(position)
        self._store.commit(expected, after, [*changes.items(), (KEY, after)])
        return after, position

    def _apply(
        self, tables: "Mapping[str, Table]", target: Readable, position: Position
    ) -> Iterator[tuple[dict[bytes, bytes | None], Position, int]]:
        """Changes, the position after them and the rows they are from, slice by slice.

        Each slice has to be written before the next one is asked for.

        Raises:
            _Deleted: rows are missing in the lake.
        """
        for name in self._streams:
            table = tables[name]
            before = position.streams.get(name, StreamPosition())
            ends = dict(read_ledger(table).positions)
            fresh = {
                part: (before.positions.get(part, 0), end)
                for part, end in ends.items()
                if before.positions.get(part, 0) < end
            }
            rows = sum(stats.rows for stats in days_of(table).values()) - sum(before.days.values())
            for bounds in _slices(fresh, -(-rows // self._slice_rows)):
                now = max(self._clock(), position.moment)
                with closing(open_features()) as connection:
                    connection.execute(f'CREATE TEMP TABLE "#slice" AS {_rows_between(table, bounds)}')
                    query = 'SELECT * FROM "#slice"'
                    days = _days(connection, query, self._lake.contracts[name].event_time.name)
                    changes: dict[bytes, bytes | None] = {}
                    if name == IDENTITIES:
                        changes |= _merges(connection, query, target)
                    else:
                        for layout in self._layouts:
                            if layout.name == name:
                                changes |= pieces_after(connection, layout, query, target, now)
                stream = position.streams.get(name, StreamPosition())
                counts = dict(stream.days)
                for day, some in days.items():
                    counts[day] = counts.get(day, 0) + some
                ahead = stream.positions | {part: end for part, (_, end) in bounds.items()}
                streams = position.streams | {name: StreamPosition(ahead, counts)}
                position = msgspec.structs.replace(position, streams=streams, moment=now)
                yield changes, position, sum(days.values())
            _check(name, table, position.streams.get(name, StreamPosition()), ends)

    def _histories(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.views.values() for name in histories.sources(one)))

    def _due(self, name: str, position: Position, seen: Mapping[str, int | None]) -> bool:
        if self.views[name].streams:
            return False
        now = {one: seen[one] or 0 for one in histories.sources(self.views[name])}
        before = position.histories.get(name)
        return before is None or before.snapshots != now or self._clock() - before.moment >= histories.AGE

    def _of_histories(
        self, name: str, tables: "Mapping[str, Table]", position: Position, target: Readable
    ) -> tuple[dict[bytes, bytes | None], Position]:
        now = max(self._clock(), position.moment)
        snapshots = {one: _snapshot(tables[one]) or 0 for one in histories.sources(self.views[name])}
        changes: dict[bytes, bytes | None] = {}
        if target is self._store:
            changes |= dict.fromkeys(key for key, _ in self._store.scan(histories.prefix(self.views[name])))
        changes |= histories.values(FeatureSources(self._lake), self.views[name], now)
        all_ = position.histories | {name: HistoryPosition(now, snapshots)}
        return changes, msgspec.structs.replace(position, histories=all_, moment=now)


@contextmanager
def _explained() -> Iterator[None]:
    """Raise what goes wrong with the lake as Transient or Permanent."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if (said := read_failure(error)) is None:
            raise
        # Maintenance removes files that nothing refers to any more, while they may still be read here.
        raise Transient(f"The lake could not be read: {said} Try again.") from None
    except _Deleted as error:
        raise Permanent(
            f"The online store cannot be made from the lake: {error} `recsys-data verify` says what is wrong."
        ) from None


def _snapshot(table: "Table") -> int | None:
    snapshot = table.current_snapshot()
    return snapshot.snapshot_id if snapshot else None


def _slices(fresh: Mapping[int, tuple[int, int]], parts: int) -> Iterator[dict[int, tuple[int, int]]]:
    """Ranges of positions in so many parts, at least one, so that all log partitions go ahead side by side."""
    parts = max(1, parts) if fresh else 0
    for number in range(parts):
        bounds = {
            part: (begin + (end - begin) * number // parts, begin + (end - begin) * (number + 1) // parts)
            for part, (begin, end) in fresh.items()
        }
        yield {part: (first, last) for part, (first, last) in bounds.items() if first < last}


def _rows_between(table: "Table", bounds: Mapping[int, tuple[int, int]]) -> str:
    """SQL of the rows between positions in the event log."""
    field = table.schema().find_field("log_offset")
    first = min(begin for begin, _ in bounds.values())
    files = []
    for task in table.scan().plan_files():
        last = upper_bound(task.file, field)
        if last is None or last >= first:
            files.append(file_path(task.file))
    conditions = [
        f"(log_partition = {part} AND log_offset >= {begin} AND log_offset < {end})"
        for part, (begin, end) in bounds.items()
    ]
    return f"SELECT * FROM ({relation(table, files)}) WHERE {' OR '.join(conditions)}"


def _days(connection: "duckdb.DuckDBPyConnection", query: str, moment: str) -> dict[int, int]:
    day = f"coalesce(epoch_us({quote(moment)}) // {MICROSECONDS_PER_DAY}, 0)"
    return dict(connection.execute(f"SELECT {day}, count(*) FROM ({query}) GROUP BY 1").fetchall())


def _check(name: str, table: "Table", stream: StreamPosition, ends: Mapping[int, int]) -> None:
    stored = {day: stats.rows for day, stats in days_of(table).items() if stats.rows}
    applied = {day: rows for day, rows in stream.days.items() if rows}
    if stored != applied:
        day = min(day for day in stored.keys() | applied.keys() if stored.get(day) != applied.get(day))
        raise _Deleted(
            f"{name} has {stored.get(day, 0):,} rows of {np.datetime64(day, 'D')}, and {applied.get(day, 0):,} were "
            "applied: rows were deleted."
        )


def _merges(connection: "duckdb.DuckDBPyConnection", query: str, target: Readable) -> Mapping[bytes, bytes | None]:
    found = connection.execute(
        f"""SELECT anonymous_id, user_id, epoch_us(known_at) FROM ({MERGED.format(known="event_ts", rows=query)})
        WHERE anonymous_id IS NOT NULL AND known_at IS NOT NULL"""
    ).fetchall()
    return dict(changed(target.get_many, found))


def pieces_after(
    connection: "duckdb.DuckDBPyConnection", layout: Layout, query: str, target: Readable, now: int
) -> dict[bytes, bytes | None]:
    """What has to be written of a view after these rows: key -> value, None if nothing is left.

    Args:
        connection: of `open_features`, which can read the rows.
        layout: of a stream of the view.
        query: SQL of the rows.
        target: what is stored so far.
        now: the moment, in microseconds, not before that of what is stored.
    """
    found = gather(connection, layout, query, now)
    if not found.keys:
        return {}
    there = [(number, value) for number, value in enumerate(target.get_many(found.keys)) if value]
    before = decoded(layout.groups, [value for _, value in there], np.array([one for one, _ in there], np.int64))
    groups = []
    for group, (old, waited), (new, waiting) in zip(layout.groups, before, found.groups, strict=True):
        groups.append(settled(group, joined([old, new]), joined([waited, waiting]), now))
    return dict(zip(found.keys, encoded(groups, len(found.keys)), strict=True))
