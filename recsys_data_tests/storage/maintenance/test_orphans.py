"""Files that nothing refers to are removed a day later; nobody who reads or writes notices."""

import os
import sqlite3
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, Transient
from recsys_data.storage.commit import expire_old_snapshots
from recsys_data.storage.maintenance import orphans as orphans_module
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.maintenance.orphans import MARGIN, METADATA_MARGIN, Orphans, clear_referenced, remove_orphans
from recsys_data.storage.parquet import Selection, write_days
from recsys_data.storage.query import connect
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows

if TYPE_CHECKING:
    from pyiceberg.table import Table

FIRST_OF_JANUARY = 20454
NOTHING = Orphans(0, 0, 0, 0)
LATER = MARGIN.total_seconds() + 60
SOON = METADATA_MARGIN.total_seconds() + 60


@pytest.fixture
def table(open_notes: OpenLake) -> "Table":
    """Six commits to one day."""
    table = open_notes().table("notes")
    for number in range(6):
        append(table, rows((f"e{number}", 0.1 * number)), number + 1)
    return table


@pytest.fixture
def notes_file(tmp_path: Path) -> Path:
    return tmp_path / "upkeep" / "notes.db"


def ids(table: "Table") -> list[str]:
    return sorted(table.refresh().scan().to_arrow()["event_id"].to_pylist())


def folder(table: "Table") -> Path:
    path = local_path(table.location())
    assert path is not None
    return path


def files(table: "Table") -> set[Path]:
    return {path for path in folder(table).rglob("*") if path.is_file()}


def replace_everything(table: "Table") -> None:
    """Compact, and forget every snapshot but the current one."""
    compact_day(table, FIRST_OF_JANUARY)
    expire_old_snapshots(table.refresh(), enough=1, age=-timedelta(minutes=1))


def age(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_the_table_refers_to_stays_however_old_it_is(table: "Table", notes_file: Path) -> None:
    for path in files(table):
        age(path, 10 * LATER)
    before = files(table)
    for ahead in (0, LATER, 2 * LATER):
        assert remove_orphans(table, notes_file, now=time.time() + ahead) == NOTHING
    assert files(table) == before
    assert len(ids(table)) == 6


def test_files_that_were_replaced_go_a_day_after_they_were_found_and_only_once(
    table: "Table", notes_file: Path
) -> None:
    replace_everything(table)
    # How old a file is says nothing of when it was replaced.
    for path in files(table):
        age(path, 10 * LATER)
    now, before = time.time(), files(table)
    first = remove_orphans(table, notes_file, now=now)
    assert (first.removed, first.waiting > 6, files(table) == before) == (0, True, True)
    assert remove_orphans(table, notes_file, now=now + SOON - 120).removed == 0
    second = remove_orphans(table, notes_file, now=now + LATER)
    assert second == Orphans(first.waiting, first.waiting_bytes, 0, 0)
    assert len(before) - len(files(table)) == second.removed
    assert len([path for path in files(table) if path.suffix == ".parquet"]) == 1
    assert remove_orphans(table, notes_file, now=now + 2 * LATER) == NOTHING
    assert ids(table) == [f"e{n}" for n in range(6)]


def test_a_file_that_is_not_committed_yet_stays_and_can_be_committed(table: "Table", notes_file: Path) -> None:
    (file,) = write_days(table, [Selection.all(rows(("late", 0.9)))])
    assert remove_orphans(table, notes_file).waiting == 1
    assert remove_orphans(table, notes_file, now=time.time() + LATER - 120).removed == 0
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
        producer.append_data_file(file)
    assert remove_orphans(table, notes_file, now=time.time() + 2 * LATER) == NOTHING
    assert "late" in ids(table)


def test_what_was_noted_before_its_commit_waits_anew_when_it_is_replaced(table: "Table", notes_file: Path) -> None:
    (file,) = write_days(table, [Selection.all(rows(("late", 0.9)))])
    now = time.time()
    assert remove_orphans(table, notes_file, now=now).waiting == 1
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
        producer.append_data_file(file)
    # As maintenance does, the night after.
    clear_referenced(table, notes_file)
    replace_everything(table)
    assert remove_orphans(table, notes_file, now=now + LATER).removed == 0
    path = local_path(file.file_path)
    assert path is not None and path.exists()


def test_manifests_go_before_the_data_files_that_they_name(table: "Table", notes_file: Path) -> None:
    replace_everything(table)
    now = time.time()
    waiting = remove_orphans(table, notes_file, now=now).waiting
    removed = remove_orphans(table, notes_file, now=now + SOON).removed
    assert 0 < removed < waiting
    left = remove_orphans(table, notes_file, now=now + SOON)
    assert left.waiting == waiting - removed
    assert remove_orphans(table, notes_file, now=now + LATER).removed == left.waiting


def test_readers_that_began_before_go_on_reading(open_notes: OpenLake, table: "Table", notes_file: Path) -> None:
    reader = open_notes().table("notes")
    planned, scan = list(reader.scan().plan_files()), reader.scan()
    with connect(open_notes(), ["notes"]) as session:
        replace_everything(table)
        remove_orphans(table, notes_file)
        remove_orphans(table, notes_file, now=time.time() + SOON - 120)
        assert len(scan.to_arrow()) == 6
        assert remove_orphans(table, notes_file, now=time.time() + LATER - 120).removed > 0
        assert session.sql("SELECT count(*) FROM notes").fetchall() == [(6,)]
        assert all(Path(task.file.file_path).exists() for task in planned)


def test_a_commit_between_the_two_looks_at_the_table_keeps_its_file(
    open_notes: OpenLake, table: "Table", notes_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = write_days(table, [Selection.all(rows(("slow", 0.9)))])
    now = time.time()
    remove_orphans(table, notes_file, now=now)
    note = orphans_module._note

    def overtaken(*arguments) -> None:
        note(*arguments)
        other = open_notes().table("notes")
        with other.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
            producer.append_data_file(file)

    monkeypatch.setattr(orphans_module, "_note", overtaken)
    assert remove_orphans(table, notes_file, now=now + LATER).removed == 0
    assert ids(table) == [*(f"e{n}" for n in range(6)), "slow"]


@pytest.mark.parametrize("step", ["_files", "_refer", "_check", "_note", "_remove"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_leaves_the_table_whole_and_is_healed_by_the_next_call(
    table: "Table", notes_file: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    replace_everything(table)
    now = time.time()
    waiting = remove_orphans(table, notes_file, now=now).waiting
    whole = getattr(orphans_module, step)

    def crash(*arguments):
        if after:
            whole(*arguments)
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(orphans_module, step, crash)
        with pytest.raises(RuntimeError, match="crash"):
            remove_orphans(table, notes_file, now=now + LATER)
    assert ids(table) == [f"e{n}" for n in range(6)]
    left = remove_orphans(table, notes_file, now=now + LATER)
    assert (left.removed, left.waiting) == (0 if (step, after) == ("_remove", True) else waiting, 0)
    assert ids(table) == [f"e{n}" for n in range(6)]


def test_only_what_iceberg_writes_is_removed(table: "Table", notes_file: Path) -> None:
    (foreign := folder(table) / "data" / "README.txt").write_text("mine")
    stray = folder(table) / "metadata" / "stray-m0.avro"
    stray.write_bytes(b"12345")
    now = time.time()
    assert remove_orphans(table, notes_file, now=now) == Orphans(0, 0, 1, 5)
    assert remove_orphans(table, notes_file, now=now + LATER) == Orphans(1, 5, 0, 0)
    assert foreign.exists()
    assert not stray.exists()


def test_nothing_is_removed_from_a_table_whose_files_are_elsewhere(table: "Table", notes_file: Path) -> None:
    (stray := folder(table) / "data" / "stray.parquet").write_bytes(b"")
    now = time.time()
    remove_orphans(table, notes_file, now=now)
    file = next(path for path in files(table) if path.parent.name.startswith("event_ts_day"))
    file.rename(file.with_name("moved.parquet"))
    with pytest.raises(Permanent, match=rf"notes refers to {file}, which was not found below .*Nothing was removed"):
        remove_orphans(table, notes_file, now=now + LATER)
    assert stray.exists()


def test_two_at_once_and_a_damaged_file_are_reported(
    table: "Table", notes_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_orphans(table, notes_file)
    connect_ = sqlite3.connect
    monkeypatch.setattr(
        orphans_module.sqlite3, "connect", lambda path, **more: connect_(path, **{**more, "timeout": 0})
    )
    with sqlite3.connect(notes_file) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="locked.* Is table maintenance running elsewhere"):
            remove_orphans(table, notes_file)
    other.close()
    notes_file.write_bytes(b"no database" * 1000)
    with pytest.raises(Permanent, match="is damaged.* Remove it"):
        remove_orphans(table, notes_file)
