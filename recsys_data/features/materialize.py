"""Feature views in the lake: tiles and values of each day, kept equal to what their sources say.

Data flow: events of a day -> tiles of the day -> values of the entities that something happened to, at the last
microsecond of the day (of the current day: now). What was computed from what is a property of each table, changed in
the same commit as its rows; so a late event, a changed view or a crash leaves days that differ, and the next call
computes those again.
Run alone: `recsys-data features refresh item_engagement`.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.contracts.features.check import Resolved, resolve
from recsys_data.contracts.features.datasets import states_needed, stream_of
from recsys_data.contracts.features.sources import SESSIONS, dataset_of
from recsys_data.contracts.features.view import LIFETIME, ROLLING, FeatureView, keys
from recsys_data.contracts.model import tiles_name
from recsys_data.days import MICROSECONDS_PER_DAY, to_microseconds
from recsys_data.errors import Transient
from recsys_data.features.aggregates import Tiles
from recsys_data.features.day_tiles import day_tiles
from recsys_data.features.lake import FeatureSources, open_features
from recsys_data.features.point_in_time import EVENT_TIME, join
from recsys_data.features.rows import IDENTITIES, merges
from recsys_data.leases import lease
from recsys_data.settings import Settings
from recsys_data.sql import quote
from recsys_data.storage.availability import read_failure
from recsys_data.storage.commit import Change, compare_and_set, expire_old_snapshots
from recsys_data.storage.duckdb_writer import copy_days, copy_rows
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from recsys_data.storage.tables import Lake

PROPERTY = "recsys_data.features"
# Raised when the same declaration is computed otherwise, so that what is stored is computed again.
COMPUTATION = 1
# Source rows of the days that are computed and committed together.
CHUNK_ROWS = 20_000_000
LOCK_SECONDS = 600
AT_END = datetime.max.replace(tzinfo=UTC)


class Computed(msgspec.Struct, frozen=True):
    """What a table of features was computed from.

    Attributes:
        definition: stands for the view as it was declared.
        days: day since 1970 -> what stands for the rows of the source.
        token: tells the commit that wrote this from one of another writer.
    """

    definition: str = ""
    days: dict[int, str] = {}
    token: str = ""


@dataclass(frozen=True, slots=True)
class ViewUpdate:
    """What refreshing a view did.

    Attributes:
        name: of the view.
        days: days since 1970 that were computed.
        rows: day -> rows of the view.
        values: feature values that were written.
        seconds: how long it took.
    """

    name: str
    days: list[int]
    rows: dict[int, int]
    values: int
    seconds: float


def stale_days(lake: "Lake", name: str) -> list[int]:
    """The days (since 1970) of a view that differ from what its sources say, in order."""
    return _Refresh(lake, FeatureSources(lake), name, datetime.now(UTC)).stale()


def refresh_view(
    lake: "Lake", settings: Settings, name: str, days: Collection[int] | None = None, now: datetime | None = None
) -> Iterator[ViewUpdate]:
    """Make tiles and values of a view what its sources say, some days at a time, the newest first.

    Args:
        lake: where the view and its sources are.
        settings: say how much memory is used before it spills, and where the lock is.
        name: of the view.
        days: since 1970; of these only those that differ are computed. None: all.
        now: the moment of the values of the current day.

    Yields:
        What was committed.

    Raises:
        UserError: there is no such view, or it needs an extra that is not installed.
        Transient: others are at the same work, or memory and disk do not suffice; what was committed stays.
    """
    with lease(settings, f"features.{name}", LOCK_SECONDS) as mine:
        if not mine:
            raise Transient(f"Another process has been computing {name} for {LOCK_SECONDS} seconds. Try again later.")
        refresh = _Refresh(lake, FeatureSources(lake), name, now or datetime.now(UTC))
        # The rest is for what is merged outside of DuckDB.
        memory_bytes = settings.history_memory_mb * 800_000
        # Values merge tiles of many days, so that all tiles are made before the first value.
        for chunk in refresh.chunks(refresh.stale_tiles()):
            _within_limits(name, partial(refresh.make_tiles, days=chunk), memory_bytes)
        for chunk in refresh.chunks([day for day in refresh.stale() if days is None or day in days]):
            began = time.perf_counter()
            rows = _within_limits(name, partial(refresh.compute, days=chunk), memory_bytes)
            values = sum(rows.values()) * len(refresh.view.features)
            yield ViewUpdate(name, chunk, rows, values, time.perf_counter() - began)


def _within_limits(name: str, work: "Callable[[duckdb.DuckDBPyConnection], Any]", memory_bytes: int) -> Any:
    import duckdb

    try:
        with open_features(memory_bytes) as connection:
            return work(connection)
    except duckdb.Error as error:
        if (said := read_failure(error)) is None:
            raise
        raise Transient(f"{name} could not be computed: {said} Free memory or space.") from None


class _Refresh:
    """One view, its sources as they are stored now, and what its tables were computed from."""

    def __init__(self, lake: "Lake", features: FeatureSources, name: str, now: datetime) -> None:
        self.lake, self.features, self.name, self.now = lake, features, name, now
        self.view = features.view(name)
        self.resolved: Resolved = resolve(self.view, features.sources)
        self.stream = stream_of(self.view)
        self.table = lake.table(name)
        self.definition = _digest(repr((COMPUTATION, self.view, self.resolved.types)))
        self.sizes: dict[int, int] = {}
        self.prints = self._of_stream() if self.stream else self._of_history()

    def stale_tiles(self) -> list[int]:
        """Days whose tiles have to be made again."""
        return self.stale(self.lake.table(tiles_name(self.name))) if self.stream else []

    def stale(self, table: "Table | None" = None) -> list[int]:
        """Days of the view, or of the table of its tiles, that have to be computed again."""
        stored = _read(table or self.table)
        known = stored.days if stored.definition == self.definition else {}
        days = self.prints.keys() | (known.keys() - self.prints.keys())
        # What was computed for a declaration of old is removed even where there is nothing to compute.
        days |= stored.days.keys() if stored.definition != self.definition else set()
        today = to_microseconds(self.now) // MICROSECONDS_PER_DAY
        return sorted(day for day in days if known.get(day) != self.prints.get(day) and day <= today)

    def chunks(self, days: Sequence[int]) -> Iterator[list[int]]:
        """Days in groups of bounded size, the newest first."""
        chunk: list[int] = []
        size = 0
        for day in sorted(days, reverse=True):
            if chunk and size + self.sizes.get(day, 0) > CHUNK_ROWS:
                yield sorted(chunk)
                chunk, size = [], 0
            chunk.append(day)
            size += self.sizes.get(day, 0)
        if chunk:
            yield sorted(chunk)

    def compute(self, connection: "duckdb.DuckDBPyConnection", days: list[int]) -> dict[int, int]:
        """Compute and commit the values of some days; returns the rows of the view for each."""
        files = copy_days(connection, self._values(connection, days), self.table)
        self._commit(self.table, days, files)
        rows = dict.fromkeys(days, 0)
        for file in files:
            rows[file.partition[0]] += file.record_count
        return rows

    def _of_stream(self) -> dict[int, str]:
        """What stands for the events of each day: only adding and removing rows changes what a day holds."""
        source = self.stream or ""
        stored = {day: stats.rows for day, stats in days_of(self.lake.table(dataset_of(source))).items()}
        self.sizes = stored
        if source != SESSIONS:
            return {day: str(rows) for day, rows in stored.items()}
        days = stored.keys() | {day + 1 for day in stored}
        return {day: f"{stored.get(day - 1, 0)}+{stored.get(day, 0)}" for day in days if stored.get(day)}

    def _of_history(self) -> dict[int, str]:
        """What stands for the states that began or ended on each day."""
        parts = []
        for name in dict.fromkeys(self.view.source_of(one) for one in self.view.features if not one.expression):
            begins, ends = map(quote, self.features.sources[name].valid or ("", ""))
            parts += [
                f"""SELECT epoch_us({moment}) // {MICROSECONDS_PER_DAY} AS day, hash(r) AS h
                FROM ({self.features.rows(name)}) r WHERE {moment} IS NOT NULL"""
                for moment in (begins, ends)
            ]
        with open_features() as connection:
            found = connection.execute(
                f"SELECT day, count(*), bit_xor(h) FROM ({' UNION ALL '.join(parts)}) GROUP BY day"
            ).fetchall()
        self.sizes = {day: rows for day, rows, _ in found}
        longest = max((one.delay + one.window.size for one in self.view.features if one.over_states), default=0)
        if not longest:
            return {day: f"{rows}:{mixed:x}" for day, rows, mixed in found}
        # What is in the windows of a day began or ended on it or before.
        back = longest // MICROSECONDS_PER_DAY + 1
        return {day: _digest(repr(sorted(one for one in found if day - back <= one[0] <= day))) for day, _, _ in found}

    def make_tiles(self, connection: "duckdb.DuckDBPyConnection", days: list[int]) -> None:
        """Make and commit the tiles of some days."""
        name = self.stream or ""
        table = self.lake.table(tiles_name(self.name))
        stored = ", ".join(
            f"to_json({quote(one.name)})::VARCHAR AS {quote(one.name)}"
            for one in states_needed(self.view, self.features.sources[name], self.resolved)
            if one.struct
        )
        files = []
        for day in days:
            made = day_tiles(connection, self.features, self.view, name, self.resolved, table, day)
            query = f"SELECT *{f' REPLACE ({stored})' if stored else ''} FROM ({made})"
            files.append(copy_rows(connection, query, table, day))
        self._commit(table, days, [file for file in files if file])

    def _values(self, connection: "duckdb.DuckDBPyConnection", days: list[int]) -> str:
        """SQL of the values of all entities that something happened to on these days."""
        entity = ", ".join(map(quote, self.view.entity))
        moment = quote(self.lake.contracts[self.name].event_time.name)
        now = to_microseconds(self.now)
        moments = {day: min((day + 1) * MICROSECONDS_PER_DAY - 1, now) for day in days}
        listed = ", ".join(f"({day}, make_timestamptz({at}::BIGINT))" for day, at in moments.items())
        spine = f"""SELECT {entity}, {moment} FROM ({self._touched(days)}) JOIN (VALUES {listed}) AS t("#day", {moment})
            USING ("#day")"""
        given = {}
        keep = _raw_days(self.view, moments.values())
        if self.stream:
            given = {(self.name, self.stream): Tiles(self._stored_tiles(days), AT_END)}
        relations = self.features.relations([self.view], EVENT_TIME, keep.__contains__)
        values = join(
            connection,
            connection.sql(spine),
            [self.view],
            self.features.sources,
            relations,
            known=EVENT_TIME,
            timestamp=self.lake.contracts[self.name].event_time.name,
            tiles=given,
            values_only=True,
        )
        names = ", ".join(f"{quote(f'{self.name}__{one.name}')} AS {quote(one.name)}" for one in self.view.features)
        return f"SELECT {entity}, {moment}, {names} FROM ({values.sql_query()})"

    def _touched(self, days: list[int]) -> str:
        """SQL of the entities that something happened to, by `#day`."""
        entity = list(map(quote, self.view.entity))
        listed = ", ".join(map(str, days))
        if not self.stream:
            parts = [
                f"""SELECT {", ".join(entity)}, epoch_us({moment}) // {MICROSECONDS_PER_DAY} AS "#day"
                FROM ({self.features.rows(name)}) WHERE {moment} IS NOT NULL"""
                for name in dict.fromkeys(self.view.source_of(one) for one in self.view.features if not one.expression)
                for moment in map(quote, self.features.sources[name].valid or ())
            ]
            return f'SELECT DISTINCT * FROM ({" UNION ALL ".join(parts)}) WHERE "#day" IN ({listed})'
        source = self.features.sources[self.stream]
        day = f'epoch_us(tile_ts) // {MICROSECONDS_PER_DAY} AS "#day"'
        whose = ", ".join(map(quote, keys(self.view, source)))
        touched = f"SELECT {whose}, {day} FROM ({self._stored_tiles(days, only=True)})"
        there = " AND ".join(f"{key} IS NOT NULL" for key in entity)
        sql = f'SELECT DISTINCT {", ".join(entity)}, "#day" FROM ({touched}) WHERE {there}'
        if source.identity and len(keys(self.view, source)) > len(entity) and IDENTITIES in self.lake.contracts:
            user, anonymous = map(quote, source.identity)
            merged = merges(self.features.relations([self.view], EVENT_TIME)[IDENTITIES])
            owners = f"""SELECT t.* REPLACE ("#user" AS {user}) FROM ({touched}) t
                JOIN ({merged}) m ON t.{anonymous} = m."#anonymous" WHERE t.{user} IS NULL"""
            both = f"({sql}) UNION ALL BY NAME ({owners})"
            sql = f'SELECT DISTINCT {", ".join(entity)}, "#day" FROM ({both}) WHERE {there}'
        return sql

    def _stored_tiles(self, days: list[int], only: bool = False) -> str:
        """SQL of the tiles that can count at the end of these days; `only`: those of the days themselves."""
        source = self.features.sources[self.stream or ""]
        spans = [one.delay + one.window.size + one.window.hop for one in self.view.features if one.is_aggregate]
        lifetime = any(one.window.kind == LIFETIME for one in self.view.features if one.is_aggregate)
        first = -(2**62) if lifetime else days[0] - max(spans) // MICROSECONDS_PER_DAY - 1
        table = self.lake.table(tiles_name(self.name))
        files = [
            file_path(task.file)
            for task in table.scan().plan_files()
            if (task.file.partition[0] in days if only else first <= task.file.partition[0] <= days[-1])
        ]
        structs = [one for one in states_needed(self.view, source, self.resolved) if one.struct]
        read = ", ".join(f"CAST({quote(one.name)}::JSON AS {one.struct}) AS {quote(one.name)}" for one in structs)
        return f"SELECT *{f' REPLACE ({read})' if read else ''} FROM ({relation(table, files)})"

    def _commit(self, table: "Table", days: Collection[int], files: "list[DataFile]") -> None:
        """Put files in the place of those of these days, in one commit with what they were computed from."""
        token = uuid.uuid4().hex

        def replace(table: "Table") -> Change | bool:
            stored = _read(table)
            if stored.token == token:
                return True
            known = dict(stored.days) if stored.definition == self.definition else {}
            known |= {day: self.prints[day] for day in days if day in self.prints}
            for day in set(days) - self.prints.keys():
                known.pop(day, None)
            gone = [task.file for task in table.scan().plan_files() if task.file.partition[0] in days]
            state = msgspec.json.encode(Computed(self.definition, known, token)).decode()
            return Change(gone, files, {PROPERTY: state})

        compare_and_set(table, replace, exclusive=True)
        expire_old_snapshots(table)


def _raw_days(view: FeatureView, moments: Iterable[int]) -> set[int]:
    """Days of which rows are needed beside tiles: within a hop at the head and, if a window rolls, at the tail."""
    found = set()
    for moment in moments:
        for one in view.features:
            cuts = [moment - one.delay] if one.is_aggregate else []
            cuts += [moment - one.delay - one.window.size] if one.is_aggregate and one.window.kind == ROLLING else []
            found |= {cut // MICROSECONDS_PER_DAY for cut in cuts if cut % view.hop}
    return found


def _read(table: "Table") -> Computed:
    text = table.properties.get(PROPERTY)
    return msgspec.json.decode(text, type=Computed) if text else Computed()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
