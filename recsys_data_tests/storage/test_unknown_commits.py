"""A catalog reports a commit as failed, and took it or did not: nothing is lost, nothing is doubled."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import requests
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from sqlalchemy.exc import OperationalError

from recsys_data.errors import Transient
from recsys_data.storage import commit as commits
from recsys_data.storage.commit import accept_losses, commit, delete_files
from recsys_data.storage.ledger import Ledger, LostRange, accepted_losses, read_deletions, read_ledger
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.partition import publish
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows

if TYPE_CHECKING:
    from pyiceberg.table import Table

DAY = 20454
FAILURES = [
    CommitStateUnknownException("504 Gateway Timeout"),
    requests.ConnectionError("connection reset"),
    OperationalError("COMMIT", {}, Exception("server closed the connection")),
]


def _append(table: "Table") -> None:
    assert append(table, rows(("d", 0), ("e", 3)), 9).positions == {0: 9}


def _publish(table: "Table") -> None:
    new = rows(("d", 0), ("e", 0), note=["x", None])
    assert publish(table, DAY, new.to_reader()) == 2


def _delete(table: "Table") -> None:
    gone = [task.file for task in table.scan().plan_files() if task.file.partition[0] == DAY]
    count = sum(file.record_count for file in gone)
    assert delete_files(table, gone, [], lambda old: msgspec.structs.replace(old, discarded=old.discarded + count))
    assert read_deletions(table).discarded == 2


def _compact(table: "Table") -> None:
    assert compact_day(table, DAY) == 2
    assert len([task for task in table.scan().plan_files() if task.file.partition[0] == DAY]) == 1


def _accept(table: "Table") -> None:
    assert accept_losses(table) == 1


KINDS: dict[Callable[["Table"], None], str] = {
    _append: "abcde",
    _publish: "cde",
    _delete: "c",
    _compact: "abc",
    _accept: "abc",
}


@pytest.fixture
def table(open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch) -> "Table":
    """Events a and b of one day in two files, and c of another."""
    monkeypatch.setattr(commits, "PAUSE_SECONDS", 0)
    table = open_notes().table("notes")
    for number, (event, day) in enumerate((("a", 0), ("b", 0), ("c", 3))):
        append(table, rows((event, day), note=["-"]), number + 1)
    stored = read_ledger(table)
    commit(table, stored, msgspec.structs.replace(stored, lost=(LostRange(0, 1, 2),)), [])
    return table


def fail(patch: pytest.MonkeyPatch, error: Exception, taken: bool, times: int) -> None:
    """Let the catalog report so many commits as failed, of which it takes the first or none."""
    commit_table, calls = SqlCatalog.commit_table, itertools.count()

    def failing(*arguments: Any) -> Any:
        call = next(calls)
        done = commit_table(*arguments) if call >= times or (taken and not call) else None
        if call < times:
            raise error
        return done

    patch.setattr(SqlCatalog, "commit_table", failing)


def ids(table: "Table") -> str:
    return "".join(sorted(table.scan().to_arrow()["event_id"].to_pylist()))


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_commit_whose_outcome_is_unknown_is_made_once(
    kind: Callable[["Table"], None],
    error: Exception,
    taken: bool,
    table: "Table",
    open_notes: OpenLake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = table.metadata.last_sequence_number
    fail(monkeypatch, error, taken, times=1)
    kind(table)
    stored = open_notes().table("notes")
    assert ids(stored) == KINDS[kind]
    assert stored.metadata.last_sequence_number == before + (kind is not _accept)
    assert (accepted_losses(stored) == 1) == (kind is _accept)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_catalog_that_never_answers_is_reported_and_nothing_is_lost(
    kind: Callable[["Table"], None], table: "Table", open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail(patch, FAILURES[0], taken=False, times=10**6)
        with pytest.raises(Transient, match="could not be committed in 20 attempts: 504 Gateway Timeout"):
            kind(table)
    assert ids(open_notes().table("notes")) == "abc"
    kind(table.refresh())
    assert ids(open_notes().table("notes")) == KINDS[kind]


def test_a_commit_that_was_taken_is_found_under_a_later_one(
    table: "Table", open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maintenance commits after the one whose answer was lost, before its writer looks again."""
    commit_table, first = SqlCatalog.commit_table, [True]

    def lost(*arguments: Any) -> Any:
        done = commit_table(*arguments)
        if first:
            first.clear()
            assert compact_day(open_notes().table("notes"), DAY) == 2
            raise CommitStateUnknownException("502 Bad Gateway")
        return done

    monkeypatch.setattr(SqlCatalog, "commit_table", lost)
    monkeypatch.setattr(commits, "LOCK_SECONDS", 0)
    base = read_ledger(table)
    commit(table, base, Ledger({0: 9}, rows=base.rows), [])
    assert (ids(table), read_ledger(table).positions) == ("abc", {0: 9})
