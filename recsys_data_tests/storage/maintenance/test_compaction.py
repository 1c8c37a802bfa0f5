"""Upkeep keeps a table small while rows come in, and what the table holds stays the same."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.exc import OperationalError

from recsys_data.contracts import Contract, Kind
from recsys_data.errors import Transient
from recsys_data.storage import integrity as damage
from recsys_data.storage.iceberg.file_io import DurableFileIO, FoundFile
from recsys_data.storage.iceberg.manifest_stats import days
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.maintenance import compaction as maintenance
from recsys_data.storage.maintenance.compaction import compact_day, compact_days, maintain_table
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, at, rows

if TYPE_CHECKING:
    from pyiceberg.table import Table

FIRST = 20454
STEPS = ("compact_days", "expire_old_snapshots", "remove_orphans", "rewrite", "_replace", "sync_all")


@pytest.fixture
def lake(open_notes: OpenLake, notes: Contract, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Holds `notes` as a stream dataset; snapshots are forgotten at once, and four files are many."""
    monkeypatch.setattr(maintenance, "SNAPSHOTS_KEPT", -timedelta(minutes=1))
    monkeypatch.setattr(maintenance, "SMALL_FILES", 4)
    return open_notes({"notes": replace(notes, kind=Kind.EVENTS)})


def feed(table: "Table", count: int, day: float = 0) -> list[str]:
    """Commit one row at a time."""
    position = table.metadata.last_sequence_number
    given = [f"e{position + number}" for number in range(count)]
    for number, event_id in enumerate(given):
        append(table, rows((event_id, day)), position + number + 1)
    return given


def ids(table: "Table") -> list[str]:
    return sorted(table.refresh().scan().to_arrow()["event_id"].to_pylist())


def stored(table: "Table") -> list[FoundFile]:
    assert isinstance(table.io, DurableFileIO)
    return list(table.io.files_below(table.location()))


def files_by_day(table: "Table") -> dict[int, int]:
    return {day - FIRST: stats.files for day, stats in days(table.refresh()).items()}


def nights() -> Iterator[datetime]:
    now = datetime.now(UTC)
    while True:
        now += timedelta(days=1)
        yield now


def test_a_hundred_commits_with_upkeep_in_between_keep_every_row_and_few_files(lake: Lake) -> None:
    rng, night, table = random.Random(1), nights(), lake.table("notes")
    given: list[str] = []
    sizes: list[int] = []
    for _ in range(5):
        for _ in range(5):
            given += feed(table, 4, rng.choice([0, 0, 0, 1, 2, 30]))
        maintain_table(lake, "notes", next(night))
        sizes.append(len(stored(table)))
        assert ids(table) == sorted(given)
        assert read_ledger(lake.table("notes")).rows == len(given)
    assert max(files_by_day(table).values()) < 4
    # Files of the last day and of the one before it, and what is in use; without maintenance there are hundreds.
    assert sizes[-1] <= 1.2 * max(sizes[:4]) < 250
    maintain_table(lake, "notes", next(night))
    maintain_table(lake, "notes", next(night))
    assert len(stored(table)) < 40


def test_a_second_run_does_nothing(lake: Lake) -> None:
    night, table = nights(), lake.table("notes")
    feed(table, 9)
    first = maintain_table(lake, "notes", next(night))
    assert (first.files_before, first.files_after) == (9, 1)
    assert first.expired > 8
    assert first.orphans.removed == 0
    maintain_table(lake, "notes", next(night))
    whole, files = table.refresh().metadata_location, sorted(stored(table))
    third = maintain_table(lake, "notes", next(night))
    assert (third.files_before, third.files_after, third.expired) == (1, 1, 0)
    assert (third.orphans.removed, third.orphans.waiting) == (0, 0)
    assert (table.refresh().metadata_location, sorted(stored(table))) == (whole, files)


def test_todays_files_are_compacted_and_other_datasets_left_alone(open_notes: OpenLake, lake: Lake) -> None:
    table = lake.table("notes")
    feed(table, 5)
    maintain_table(open_notes(), "notes", at(0.5))
    assert files_by_day(table) == {0: 5}, "snapshots are known by their files"
    maintain_table(lake, "notes", at(0.5))
    assert files_by_day(table) == {0: 1}


def test_many_days_are_swapped_in_one_commit(lake: Lake) -> None:
    table = lake.table("notes")
    given = [event_id for day in range(6) for event_id in feed(table, 4, day)]
    commits = table.metadata.last_sequence_number
    assert compact_days(table, FIRST + 9) == 24
    assert table.refresh().metadata.last_sequence_number == commits + 1
    assert ids(table) == sorted(given)


def test_commits_leave_few_manifests(lake: Lake) -> None:
    table = lake.table("notes")
    given = feed(table, 70)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) < 20
    assert ids(table) == sorted(given)


def test_days_with_most_files_come_first_and_work_is_bounded(lake: Lake) -> None:
    table = lake.table("notes")
    for day, count in ((0, 4), (1, 7), (2, 3), (3, 5)):
        feed(table, count, day)
    assert compact_days(table, FIRST + 9, work_bytes=1) == 7
    assert files_by_day(table) == {0: 4, 1: 1, 2: 3, 3: 5}
    assert compact_days(table, FIRST + 9) == 9
    assert files_by_day(table) == {0: 1, 1: 1, 2: 3, 3: 1}
    assert compact_days(table, FIRST + 9) == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_between_any_two_steps_leaves_a_table_that_reads_the_same(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    night, table = nights(), lake.table("notes")
    given = sorted(feed(table, 6))
    for after in (False, True):
        whole = getattr(maintenance, step)

        def crash(*arguments: Any, whole=whole, after=after, **more: Any) -> None:
            if after:
                whole(*arguments, **more)
            raise RuntimeError("crash")

        with monkeypatch.context() as patch:
            patch.setattr(maintenance, step, crash)
            with pytest.raises(RuntimeError, match="crash"):
                maintain_table(lake, "notes", next(night))
        assert ids(table) == given
        given = sorted(given + feed(table, 4))
    maintain_table(lake, "notes", next(night))
    assert maintain_table(lake, "notes", next(night)).orphans.waiting == 0
    assert ids(table) == given
    assert files_by_day(table) == {0: 1}
    assert len([file for file in stored(table) if file.location.endswith(".parquet")]) == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_consumer_that_commits_between_any_two_steps_loses_nothing(
    open_notes: OpenLake, lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    night, table = nights(), lake.table("notes")
    given = feed(table, 6)
    maintain_table(lake, "notes", next(night))
    given += feed(table, 6)
    writer = open_notes().table("notes")
    whole = getattr(maintenance, step)

    def overtaken(*arguments: Any, **more: Any) -> Any:
        given.extend(feed(writer.refresh(), 2))
        result = whole(*arguments, **more)
        given.extend(feed(writer.refresh(), 2))
        return result

    monkeypatch.setattr(maintenance, step, overtaken)
    maintain_table(lake, "notes", next(night))
    monkeypatch.setattr(maintenance, step, whole)
    assert ids(table) == sorted(given)
    assert read_ledger(lake.table("notes")).rows == len(given)


def test_readers_that_began_before_read_everything_after(open_notes: OpenLake, lake: Lake) -> None:
    night, table = nights(), lake.table("notes")
    given = sorted(feed(table, 6))
    scan = open_notes().table("notes").scan()
    tasks = list(scan.plan_files())
    with connect(open_notes(), ["notes"]) as session:
        maintain_table(lake, "notes", next(night))
        feed(table, 3)
        assert sorted(row[0] for row in session.sql("SELECT event_id FROM notes").fetchall()) == given
        assert sorted(scan.to_arrow()["event_id"].to_pylist()) == given
        assert all(scan.io.new_input(task.file.file_path).exists() for task in tasks)


def test_files_that_others_keep_rewriting_are_reported(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(lake.table("notes"), 4)
    monkeypatch.setattr(maintenance, "_replace", lambda *_: False)
    with pytest.raises(Transient, match="keep being rewritten by others"):
        maintain_table(lake, "notes", datetime.now(UTC))


def test_a_compacted_file_has_few_row_groups(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PART_ROWS", 4)
    table = lake.table("notes")
    given = feed(table, 10)
    assert compact_days(table, FIRST + 1) == 10
    (file,) = [task.file.file_path for task in table.refresh().scan().plan_files()]
    footer = pq.read_metadata(file)
    assert [footer.row_group(n).num_rows for n in range(footer.num_row_groups)] == [4, 4, 2]
    assert ids(table) == sorted(given)


def test_long_rows_are_compacted_a_few_at_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lake.table("notes")
    for number in range(3):
        append(table, rows(*((f"{number}-{n}-{'x' * 1000}", 0) for n in range(50))), number + 1)
    before = ids(table)
    monkeypatch.setattr(damage, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(maintenance, "PART_BYTES", 20_000)
    assert compact_day(table, FIRST) == 3
    (path,) = [Path(task.file.file_path) for task in table.refresh().scan().plan_files()]
    parquet = pq.read_metadata(path)
    assert max(parquet.row_group(n).num_rows for n in range(parquet.num_row_groups)) <= 30
    assert ids(table) == before


def test_a_catalog_that_is_locked_for_a_moment_is_tried_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table, commit_table, left = lake.table("notes"), SqlCatalog.commit_table, [2]
    given = feed(table, 5)

    def locked(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return commit_table(*arguments)

    monkeypatch.setattr(SqlCatalog, "commit_table", locked)
    assert compact_days(table, FIRST + 1) == 5
    assert (left, ids(table)) == ([0], sorted(given))
