"""Whatever step bringing a history up to date is interrupted at, the next call leaves what it should be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from recsys_data import durable
from recsys_data.contracts import Contract
from recsys_data.ingestion.batch.history import state as history_state
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.compare import Comparison
from recsys_data.ingestion.batch.history.update import overlaps
from recsys_data.storage import duckdb_writer as copy
from recsys_data_tests.support.crashes import Crash
from recsys_data_tests.support.histories import Histories, Row, moment, oracle, things

BEFORE, AFTER = 0, 1
# Where the process dies: before or after a step that leaves a trace, the first or a later time it is taken.
PLACES: list[tuple[Any, str, int, int]] = [
    (history, "stored_days", 1, AFTER),
    (Comparison, "compare", 3, BEFORE),
    (Comparison, "put_aside", 1, AFTER),
    (history, "copy_rows", 2, BEFORE),
    (copy, "sync_all", 1, BEFORE),
    (copy, "sync_all", 4, AFTER),
    (history, "commit_state", 1, BEFORE),
    (SqlCatalog, "commit_table", 1, BEFORE),
    (SqlCatalog, "commit_table", 1, AFTER),
    (history_state, "expire_old_snapshots", 1, BEFORE),
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return things(tmp_path_factory.mktemp("contracts"))


class Crashes:
    """Raises `Crash` before or after a step is taken for a given time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.name, self.count, self.when = "", 0, 0
        for owner, name in {(owner, name) for owner, name, _, _ in PLACES}:
            patch.setattr(owner, name, self._wrapped(name, getattr(owner, name)))
        # A process that is killed does not tidy up.
        rmtree = durable.shutil.rmtree
        patch.setattr(durable.shutil, "rmtree", lambda path, *more: None if self.dead else rmtree(path, *more))
        self.dead = False

    def arm(self, name: str, count: int, when: int) -> None:
        self.name, self.count, self.when, self.dead = name, count, when, False

    def _wrapped(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def crashing(*args: Any, **kwargs: Any) -> Any:
            self.count -= name == self.name
            armed = name == self.name and self.count == 0
            if armed and self.when == BEFORE:
                self._die()
            result = work(*args, **kwargs)
            if armed:
                self._die()
            return result

        return crashing

    def _die(self) -> None:
        self.name, self.dead = "", True
        raise Crash


def rows(number: int) -> list[Row]:
    """Five rows, of which some change, go and come back from day to day."""
    return [{"id": str(n), "a": (number + n) // 2} for n in range(5) if (number + n) % 4]


def test_a_crash_at_any_step_is_healed_by_the_next_call(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DAYS_BYTES", 1)
    crashes = Crashes(monkeypatch)
    lake = Histories(tmp_path, contract)
    stored = {}
    for number in (0, 2, 4):
        stored[number] = (rows(number), moment(number + 1))
        lake.take(number, *stored[number])
        lake.bring()
    before = lake.periods()
    for turn, (_, name, count, when) in enumerate(PLACES):
        # Day 2 is taken again, so that days 2 and 4 are undone; day 1 comes late, or again.
        for number in (1, 2):
            stored[number] = (rows(number + 4 * (turn % 2)), moment(number + 1))
        lake.replace((number, *stored[number]) for number in (1, 2))
        crashes.arm(name, count, when)
        with pytest.raises(Crash):
            lake.bring()
        done = lake.periods()
        assert done in (before, oracle(contract, stored)), (name, count, when)
        # The next process is reported nothing of the one before.
        crashes.dead = False
        lake.bring()
        before = lake.periods()
        assert before == oracle(contract, stored), (name, count, when)
        assert list(lake.staging.iterdir()) == []
    assert overlaps(lake.lake, "things") == 0
