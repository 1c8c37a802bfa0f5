"""Table maintenance that disturbs neither readers nor writers: compaction, snapshot expiration, orphan removal.

Data flow: days of small files -> one file each -> old snapshots expired -> files that nothing refers to removed.
Run alone: `dagster asset materialize --select lake_upkeep -m recsys_data.definitions`.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys_data.background import in_background
from recsys_data.days import day_number
from recsys_data.durable import local_path, sync_all
from recsys_data.errors import Transient
from recsys_data.settings import DUCKDB
from recsys_data.storage.commit import Change, compare_and_set, expire_old_snapshots, live_files
from recsys_data.storage.iceberg.manifest_stats import read_manifests
from recsys_data.storage.iceberg.pyiceberg_patches import remembered_manifests
from recsys_data.storage.integrity import checked_batches, names_corrupt_file
from recsys_data.storage.intent import referenced_files
from recsys_data.storage.maintenance.engine import LARGE_BYTES, Engine, Rewritten, small_files
from recsys_data.storage.maintenance.orphans import Orphans, clear_referenced, references, remove_orphans
from recsys_data.storage.parquet import dictionary_columns, file_schema, write_day
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

PART_ROWS = 100_000
PART_BYTES = 128 * 1024 * 1024
ATTEMPTS = 5
# A late event makes a small file of an old day: a few of them cost readers less than writing the day again.
SMALL_FILES = 8
# What one run rewrites at most, so that a long neglected table takes several runs rather than one very long one.
WORK_BYTES = 8 * 1024**3
# What is rewritten for one swap, and begun again when others changed it meanwhile.
SWAP_BYTES = 1024**3
# Commits of consumers wait for a swap, about a fifth of a second for each thousand files.
SWAP_FILES = 2000
# Of tables that take a commit a day; a consumer expires its snapshots far sooner.
SNAPSHOTS_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class TableMaintenance:
    """What maintenance of one table did.

    Attributes:
        files_before: data files of the table's current snapshot, before.
        files_after: and after.
        expired: snapshots that were expired.
        orphans: files that nothing refers to.
    """

    files_before: int
    files_after: int
    expired: int
    orphans: Orphans
    seconds: float


class _InProcess:
    """The engine of one machine: this process."""

    def rewrite_days(self, table: "Table", days: Sequence[int]) -> Rewritten:
        rewritten = Rewritten([], [])
        for day, files in in_background(small_files, table, days).items():
            if len(files) > 1:
                compacted = in_background(rewrite, table, day, files)
                rewritten.new.extend([compacted] if compacted else [])
                rewritten.old.extend(files)
        return rewritten

    def references(self, table: "Table") -> Iterator[str]:
        return references(table)


IN_PROCESS = _InProcess()


def engine_of(lake: Lake) -> Engine:
    """The engine that the settings name."""
    if lake.settings is None or lake.settings.engine == DUCKDB:
        return IN_PROCESS
    from recsys_data.storage.spark.maintenance import SparkMaintenance

    return SparkMaintenance(lake.settings)


def maintain_table(lake: Lake, name: str, now: datetime | None = None) -> TableMaintenance:
    """Compact, expire and tidy up one table as of `now`; what it holds stays the same, wherever it is broken off.

    Stream datasets are compacted, today included, because a consumer leaves a file a second. Others have few files a
    day, and what is made of them is known by their names.

    Raises:
        Transient: others kept changing the same files, or are at the same work.
        Permanent: the table's files are not where it says, or damaged.
    """
    began = time.monotonic()
    now = now or datetime.now(UTC)
    table, engine = lake.table(name), engine_of(lake)
    before = in_background(_count, table)
    notes = lake.folder / "upkeep" / f"{name}.db"
    in_background(clear_referenced, table, notes)
    if lake.contracts[name].is_stream:
        compact_days(table, day_number(now.date()) + 1, engine=engine)
    expired = expire_old_snapshots(table.refresh(), enough=1, age=SNAPSHOTS_KEPT)
    intended = partial(referenced_files, lake.io, lake.warehouse, table)
    moment = now.timestamp()
    orphans = in_background(remove_orphans, table, notes, now=moment, intended=intended, referenced=engine.references)
    return TableMaintenance(before, in_background(_count, table.refresh()), expired, orphans, time.monotonic() - began)


def count_live_files(lake: Lake) -> int:
    """Data files of all tables, as their newest commits count them; no manifest is read for it."""
    snapshots = (lake.table(name).current_snapshot() for name in lake.contracts if lake.exists(name))
    summaries = (snapshot.summary for snapshot in snapshots if snapshot and snapshot.summary)
    return sum(int(summary.get("total-data-files", "0")) for summary in summaries)


@names_corrupt_file
def _count(table: "Table") -> int:
    return sum(1 for _ in table.scan().plan_files())


@names_corrupt_file
def compact_days(table: "Table", before: int, work_bytes: int = WORK_BYTES, engine: Engine = IN_PROCESS) -> int:
    """Compact the days before `before` (days since 1970) that have many small files; returns how many were replaced.

    Days with most files come first; at most `work_bytes` are rewritten, but one day in any case.

    Raises:
        Transient: others kept changing the same files; what was compacted until then stays so.
    """
    small: dict[int, tuple[int, int]] = {}
    for task in table.refresh().scan().plan_files():
        day, size = task.file.partition[0], task.file.file_size_in_bytes
        if day < before and size < LARGE_BYTES:
            files, total = small.get(day, (0, 0))
            small[day] = (files + 1, total + size)
    groups: list[list[int]] = []
    spent = 0
    left = (0, 0)
    for day, (files, size) in sorted(small.items(), key=lambda item: item[1][0], reverse=True):
        if files >= SMALL_FILES and (spent == 0 or spent + size <= work_bytes):
            if files > left[0] or size > left[1]:
                groups.append([])
                left = (SWAP_FILES, SWAP_BYTES)
            groups[-1].append(day)
            spent, left = spent + size, (left[0] - files, left[1] - size)
    with remembered_manifests():
        return sum(_compact(table, group, engine) for group in groups)


def compact_day(table: "Table", day: int) -> int:
    """Rewrite the small files of one UTC day (days since 1970) as one; returns how many were replaced.

    Rows stay as they are. Readers of earlier snapshots keep their files, which expire with the snapshots.

    Raises:
        Transient: others kept changing the same files; nothing was changed.
        Permanent: a file is damaged; nothing was changed.
    """
    return _compact(table, [day], IN_PROCESS)


def _compact(table: "Table", days: Sequence[int], engine: Engine) -> int:
    """Rewrite the small files of some days, and swap them in one commit: each swap goes through all manifests."""
    for _ in range(ATTEMPTS):
        old, new = engine.rewrite_days(table.refresh(), days)
        if not old or _replace(table, old, new):
            return len(old)
    raise Transient(f"Files of {'.'.join(table.name())} keep being rewritten by others. Try again later.")


def rewrite(
    table: "Table", day: int, files: list["DataFile"], keep: Callable[[pa.Table], pa.Table] = lambda part: part
) -> "DataFile | None":
    """Write what `keep` leaves of the files' rows (of one UTC day) to a new file, synced but not yet part of the table.

    Returns:
        None where nothing is left.

    Raises:
        Permanent: a file is damaged.
    """
    wanted = file_schema(table.schema(), [field.name for field in table.schema().fields])
    kept = map(keep, _parts(table, files, wanted))
    parts = _gathered(part for part in kept if len(part))
    first = next(parts, None)
    if first is None:
        return None
    written = write_day(table, day, itertools.chain([first], parts), dictionary_columns(first))
    path = local_path(written.file_path)
    if path:
        sync_all([path])
    return written


def _gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Small parts as few large ones: each becomes a row group, and readers pay for every one of them."""
    held: list[pa.Table] = []
    rows = size = 0
    for part in parts:
        held.append(part)
        rows, size = rows + len(part), size + part.nbytes
        if rows >= PART_ROWS or size >= PART_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _parts(table: "Table", files: list["DataFile"], wanted: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the files in bounded parts of the table's present schema.

    Raises:
        Permanent: a file is damaged. Written again, corruption would pass for sound data.
    """
    for file in files:
        for batch in checked_batches(table, file.file_path, PART_ROWS):
            part = pa.Table.from_batches([batch])
            for field in wanted:
                if field.name not in part.column_names:
                    part = part.append_column(field.name, pa.nulls(len(part), field.type))
            yield part.select(wanted.names).cast(wanted)


@names_corrupt_file
def _replace(table: "Table", old: Sequence["DataFile"], new: Sequence["DataFile"]) -> bool:
    """Swap files in one commit; False when one of the old files is no longer part of the table."""
    before, after = ({file.file_path for file in files} for files in (old, new))

    def replace(table: "Table") -> Change | bool:
        live = live_files(table)
        return Change(old, new) if live >= before else live >= after and live.isdisjoint(before)

    # What can be read before, commits do not have to wait for.
    read_manifests(table.refresh())
    return compare_and_set(table, replace, exclusive=True)
