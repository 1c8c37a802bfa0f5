"""Tables behave the same wherever they are: the tests of a local lake, on every other place too."""

# ruff: noqa: F401
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from recsys_data.contracts import Contract
from recsys_data.settings import Settings
from recsys_data.storage.commit import commit, expire_old_snapshots
from recsys_data.storage.iceberg.file_io import DurableFileIO
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.maintenance.orphans import MARGIN, METADATA_MARGIN, Orphans, remove_orphans
from recsys_data.storage.parquet import Selection, file_schema, write_day, write_days
from recsys_data.storage.query import connect
from recsys_data.storage.tables import open_lake
from recsys_data_tests.lake.conftest import PLACES
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.storage.maintenance.test_compaction import (
    lake,
    test_a_second_run_does_nothing,
    test_days_with_most_files_come_first_and_work_is_bounded,
    test_many_days_are_swapped_in_one_commit,
    test_readers_that_began_before_read_everything_after,
)
from recsys_data_tests.storage.test_commit import (
    test_a_ledger_is_read_as_it_was_committed,
    test_many_commits_in_any_interleaving_lose_nothing_and_double_nothing,
    test_rows_are_written_by_day_and_columns_may_come_in_any_order,
    test_writers_that_start_from_one_position_do_not_both_commit,
)
from recsys_data_tests.storage.test_query import (
    test_an_empty_table_is_an_empty_view_with_its_columns,
    test_only_files_that_may_hold_what_is_asked_for_are_listed,
    test_views_are_of_the_moment_they_were_made,
)
from recsys_data_tests.storage.test_time_travel import (
    test_a_commit_is_there_from_its_very_moment_on,
    test_a_transaction_of_two_snapshots_is_seen_whole_or_not_at_all,
    test_nothing_is_read_across_a_gap_of_expired_snapshots,
    test_views_of_a_moment_show_what_was_stored_then,
    test_what_has_expired_is_not_taken_for_empty,
)
from recsys_data_tests.support.rows import append, rows

if TYPE_CHECKING:
    from pyiceberg.table import Table

pytestmark = pytest.mark.integration

WRITERS, COMMITS = 3, 6
DAY = 20454
LATER = MARGIN.total_seconds() + 60
WRITER = """
import sys
from pathlib import Path
from recsys_data.errors import PositionMoved
from recsys_data.settings import Settings
from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.parquet import Selection, file_schema, write_day, write_days
from recsys_data.storage.query import connect
from recsys_data.storage.tables import open_lake
from recsys_data_tests.lake.conftest import PLACES
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.contract_files import load_one, odcs
from recsys_data_tests.support.rows import rows

folder, writer, commits = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
table = open_lake(Settings.from_env(), {"notes": load_one(folder, odcs())}).table("notes")
done = 0
while done < commits:
    base = read_ledger(table)
    position = base.positions.get(0, 0)
    files = write_days(table, [Selection.all(rows((f"{writer}-{done}", position % 2)))])
    try:
        commit(table, base, Ledger({0: position + 1}, rows=position + 1), files)
        done += 1
    except PositionMoved:
        table.refresh()
"""


def ids(table: "Table") -> list[str]:
    return sorted(table.refresh().scan().to_arrow()["event_id"].to_pylist())


def files(table: "Table") -> set[str]:
    assert isinstance(table.io, DurableFileIO)
    return {file.location for file in table.io.files_below(table.location())}


def test_writers_in_several_processes_lose_nothing_and_double_nothing(
    open_notes: OpenLake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dir", "warehouse", "catalog"):
        monkeypatch.setenv(f"RECSYS_DATA_{name.upper()}", getattr(settings, name))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / f"c{number}"), f"w{number}", str(COMMITS)])
        for number in range(WRITERS)
    ]
    table = open_notes().table("notes")
    while any(writer.poll() is None for writer in writers):
        # Maintenance goes on meanwhile.
        compact_day(table, DAY)
        time.sleep(0.2)
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert read_ledger(table.refresh()).positions == {0: WRITERS * COMMITS}
    assert ids(table) == sorted(f"w{writer}-{number}" for writer in range(WRITERS) for number in range(COMMITS))


def test_orphans_go_a_day_after_they_were_found_and_what_is_referred_to_stays(
    open_notes: OpenLake, tmp_path: Path
) -> None:
    table = open_notes().table("notes")
    for number in range(6):
        append(table, rows((f"e{number}", 0.1 * number)), number + 1)
    pending = write_days(table, [Selection.all(rows(("later", 0)))])
    compact_day(table, DAY)
    expire_old_snapshots(table.refresh(), enough=1, age=-timedelta(minutes=1))
    now, before, notes_file = time.time(), files(table), tmp_path / "notes.db"
    first = remove_orphans(table, notes_file, now=now)
    assert (first.removed, first.waiting > 6, files(table) == before) == (0, True, True)
    soon = remove_orphans(table, notes_file, now=now + METADATA_MARGIN.total_seconds() + 60)
    assert 0 < soon.removed < first.waiting
    assert all(file.file_path in files(table) for file in pending)
    last = remove_orphans(table, notes_file, now=now + LATER)
    assert (soon.removed + last.removed, last.waiting) == (first.waiting, 0)
    assert len(before) - len(files(table)) == first.waiting
    assert ids(table) == [f"e{number}" for number in range(6)]
    assert remove_orphans(table, notes_file, now=now + 2 * LATER) == Orphans(0, 0, 0, 0)


@pytest.mark.parametrize("place", PLACES[1:2], indirect=True)
def test_threads_that_share_a_file_read_what_is_there(
    notes: Contract, settings: Settings, open_notes: OpenLake
) -> None:
    table = open_notes().table("notes")
    given = rows(*((f"{number:x}-{number * 2654435761 % 2**32:08x}", 0) for number in range(100_000)))
    given = given.cast(file_schema(table.schema(), given.column_names))
    # A row group is what a thread reads.
    parts = [given.slice(at, 4_000) for at in range(0, len(given), 4_000)]
    commit(table, read_ledger(table), Ledger({0: 1}), [write_day(table, DAY, parts, [])])
    lake_of_threads = open_lake(msgspec.structs.replace(settings, duckdb_threads=4), {"notes": notes})
    found = set()
    for _ in range(10):
        with connect(lake_of_threads, ["notes"]) as session:
            found.add(session.sql("SELECT count(*), sum(hash(event_id)) FROM notes").fetchall()[0])
    assert len(found) == 1
