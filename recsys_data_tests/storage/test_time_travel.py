"""Readers in the past see what was stored then, or get an error that it has expired."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.storage.query import connect, moment_of, snapshot_at
from recsys_data.storage.tables import Lake
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.histories import Histories, things
from recsys_data_tests.support.rows import append, rows


def commits(lake: Lake, *names: str) -> list[datetime]:
    """Append a row of each id, each in a commit of its own; the moments between, one before the first included."""
    moments = []
    for number, name in enumerate(names, start=1):
        moments.append(datetime.now(UTC))
        time.sleep(0.003)
        append(lake.table("notes"), rows((name, number)), number)
        time.sleep(0.003)
    return [*moments, datetime.now(UTC)]


def ids_at(lake: Lake, moment: datetime | None) -> list[str]:
    with connect(lake, ["notes"], as_of=moment) as connection:
        return [name for (name,) in connection.sql("SELECT event_id FROM notes ORDER BY 1").fetchall()]


def expire(lake: Lake, *numbers: int) -> None:
    """Forget these of the table's snapshots, counted from the oldest."""
    table = lake.table("notes")
    forgotten = [table.metadata.snapshots[number].snapshot_id for number in numbers]
    table.maintenance.expire_snapshots().by_ids(forgotten).commit()


def test_views_of_a_moment_show_what_was_stored_then(open_notes: OpenLake) -> None:
    lake = open_notes()
    moments = commits(lake, "a", "b", "c")
    assert [ids_at(lake, before) for before in moments] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]
    assert ids_at(lake, datetime(1970, 1, 1, tzinfo=UTC)) == []
    assert ids_at(lake, datetime(1, 1, 1, tzinfo=UTC)) == []
    assert ids_at(lake, None) == ["a", "b", "c"]


def test_a_commit_is_there_from_its_very_moment_on(open_notes: OpenLake) -> None:
    lake = open_notes()
    commits(lake, "a", "b")
    snapshot = lake.table("notes").metadata.snapshots[1].snapshot_id
    moment = moment_of([lake.table("notes")], snapshot)
    assert ids_at(lake, moment) == ["a", "b"]
    assert ids_at(lake, moment - timedelta(microseconds=1)) == ["a"]


def test_a_table_that_was_never_fed_is_empty_at_any_moment(open_notes: OpenLake) -> None:
    assert ids_at(open_notes(), datetime.now(UTC)) == []


def test_what_has_expired_is_not_taken_for_empty(open_notes: OpenLake) -> None:
    lake = open_notes()
    moments = commits(lake, "a", "b", "c", "d")
    expire(lake, 0, 1)
    assert ids_at(lake, moments[3]) == ["a", "b", "c"]
    oldest = moment_of([lake.table("notes")], lake.table("notes").metadata.snapshots[0].snapshot_id)
    for before in moments[:3]:
        with pytest.raises(UserError, match="What notes held at .* has expired") as error:
            ids_at(lake, before)
        named = str(error.value).rsplit(" ", 1)[1].rstrip(".")
        assert ids_at(lake, datetime.fromisoformat(named)) == ["a", "b", "c"]
        assert datetime.fromisoformat(named) == oldest


def test_nothing_is_read_across_a_gap_of_expired_snapshots(open_notes: OpenLake) -> None:
    lake = open_notes()
    moments = commits(lake, "a", "b", "c")
    expire(lake, 1)
    assert ids_at(lake, moments[3]) == ["a", "b", "c"]
    # At moments[2] the expired one was current; an answer of `a` alone would be wrong.
    for before in moments[:3]:
        with pytest.raises(UserError, match="has expired"):
            ids_at(lake, before)


def test_a_moment_that_is_to_come_is_refused(open_notes: OpenLake) -> None:
    with pytest.raises(UserError, match="yet to come"):
        snapshot_at(open_notes().table("notes"), datetime.now(UTC) + timedelta(minutes=1))


def test_a_transaction_of_two_snapshots_is_seen_whole_or_not_at_all(open_notes: OpenLake) -> None:
    lake = open_notes()
    commits(lake, "a", "b")
    table = lake.table("notes")
    before = datetime.now(UTC)
    time.sleep(0.003)
    files = [task.file for task in table.scan().plan_files()]
    with table.transaction() as transaction:
        for file in files:
            with transaction.update_snapshot().overwrite() as overwrite:
                overwrite.delete_data_file(file)
    assert ids_at(lake, before) == ["a", "b"]
    assert ids_at(lake, datetime.now(UTC)) == []


def test_a_history_of_a_moment_knows_what_was_known_then(tmp_path: Path) -> None:
    lake = Histories(tmp_path, things(tmp_path / "contracts"))
    lake.take(0, [{"id": "x", "a": 1}])
    lake.bring()
    known = datetime.now(UTC)
    time.sleep(0.003)
    lake.take(1, [{"id": "x", "a": 2}])
    lake.bring()
    for when, found in ((known, [(1,)]), (None, [(2,)])):
        with connect(lake.open_lake(), ["things_history"], as_of=when) as connection:
            assert connection.sql("SELECT a FROM things_as_of('2026-01-09')").fetchall() == found
