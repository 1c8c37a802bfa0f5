"""Others at the same time, a catalog that fails, want of memory, and what a crash left: each is reported or healed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from sqlalchemy.exc import OperationalError

from recsys_data.contracts import Contract
from recsys_data.durable import scratch
from recsys_data.errors import Transient
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.state import read_state
from recsys_data.ingestion.batch.history.update import overlaps
from recsys_data.storage import commit as commits
from recsys_data.storage import tables
from recsys_data_tests.support.histories import Histories, day, moment, oracle, things

THREE = [
    [{"id": "x", "a": 1, "it's b": "p"}, {"id": "y"}],
    [{"id": "x", "a": 2, "it's b": None}],
    [{"id": "x", "a": 2}, {"id": "y"}, {"id": "z"}],
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return things(tmp_path_factory.mktemp("contracts"))


@pytest.fixture
def lake(tmp_path: Path, contract: Contract) -> Histories:
    return Histories(tmp_path, contract)


@pytest.fixture
def three(lake: Histories) -> Histories:
    """A lake with three days, brought up to date."""
    lake.replace((number, rows, moment(number + 1)) for number, rows in enumerate(THREE))
    lake.bring()
    return lake


def test_of_two_at_once_none_undoes_the_other(lake: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {number: (rows, moment(number + 1)) for number, rows in enumerate(THREE)}
    lake.replace((number, *snapshot) for number, snapshot in stored.items())

    def bring(_: int) -> object:
        try:
            return lake.bring().days
        except Transient as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(bring, range(3)))
    assert [day(0), day(1), day(2)] in found
    assert lake.periods() == oracle(lake.contract, stored)
    assert list(lake.staging.iterdir()) == []


def test_somebody_elses_commit_meanwhile_makes_it_start_over(three: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, others = history.commit_state, [2]

    def late(*arguments: Any) -> bool:
        if others[0]:
            others[0] -= 1
            table = three.open_lake().table("things_history")
            with table.transaction() as transaction, transaction.update_snapshot().fast_append():
                pass
        return commit(*arguments)

    monkeypatch.setattr(commits, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(history, "commit_state", late)
    three.take(3, THREE[1])
    assert three.bring().days == [day(3)]
    others[0] = 10
    three.take(4, THREE[0])
    with pytest.raises(Transient, match="things was changed by others 3 times in a row"):
        three.bring()
    others[0] = 0
    assert three.bring().days == [day(4)]
    assert overlaps(three.lake, "things") == 0


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize(
    "error",
    [OperationalError("COMMIT", {}, Exception("disk I/O error")), CommitStateUnknownException("504 Gateway Timeout")],
    ids=lambda error: type(error).__name__,
)
def test_a_commit_that_is_reported_as_failed_is_looked_after(
    three: Histories, monkeypatch: pytest.MonkeyPatch, taken: bool, error: Exception
) -> None:
    commit_table, left = SqlCatalog.commit_table, [1]

    def failing(*arguments: Any) -> Any:
        done = commit_table(*arguments) if taken or not left[0] else None
        if left[0]:
            left[0] -= 1
            raise error
        return done

    monkeypatch.setattr(commits, "PAUSE_SECONDS", 0)
    three.take(3, THREE[1])
    monkeypatch.setattr(SqlCatalog, "commit_table", failing)
    assert three.bring().days == [day(3)]
    assert overlaps(three.open_lake(), "things") == 0


def test_a_catalog_that_cannot_be_written_is_reported(three: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    before = three.periods()
    three.take(3, THREE[0])
    monkeypatch.setattr(commits, "PAUSE_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "commit_table", locked)
        with pytest.raises(Transient, match="things_history could not be committed in 20 attempts"):
            three.bring()
    assert three.periods() == before
    assert three.bring().days == [day(3)]


def test_what_does_not_fit_is_reported(three: Histories) -> None:
    three.take(3, [{"id": str(number), "it's b": "long " * 1000} for number in range(3000)])
    with pytest.raises(
        Transient, match="(?s)history of things could not be made: .*Free memory, or space in .*staging"
    ):
        history.refresh_history(three.lake, "things", three.staging, memory_bytes=1_000_000)
    assert list(three.staging.iterdir()) == []
    assert three.bring().days == [day(3)]


def test_what_a_crash_left_in_staging_is_removed_but_nothing_that_is_in_use(tmp_path: Path) -> None:
    left = tmp_path / "things.history.crashed" / "spill"
    left.mkdir(parents=True)
    other = tmp_path / "other.history.crashed"
    other.mkdir()
    with scratch(tmp_path, "things.history") as first:
        assert not left.parent.exists()
        with scratch(tmp_path, "things.history") as second:
            assert (first.is_dir(), second.is_dir(), first != second) == (True, True, True)
    assert list(tmp_path.iterdir()) == [other]


def test_files_and_their_folders_are_on_the_disk_before_the_commit(
    lake: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_data.storage import duckdb_writer as copy

    synced: list[Path] = []
    sync_all = copy.sync_all

    def remember(paths: Any) -> None:
        paths = list(paths)
        assert lake.open_lake().table("things_history").current_snapshot() is None
        synced.extend(paths)
        sync_all(paths)

    monkeypatch.setattr(copy, "sync_all", remember)
    lake.replace((number, rows, moment(number + 1)) for number, rows in enumerate(THREE))
    lake.bring()
    table = lake.lake.table("things_history")
    assert {file.name for file in synced} == {Path(task.file.file_path).name for task in table.scan().plan_files()}
    assert [taken.day for taken in read_state(table).days] == [day(0), day(1), day(2)]
    assert tables.CONTRACT_VERSION in table.properties
