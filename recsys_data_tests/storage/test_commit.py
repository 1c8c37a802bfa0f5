"""Rows and position become visible together, once, or not at all."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import msgspec
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.exc import OperationalError

from recsys_data.errors import PositionMoved, Transient
from recsys_data.storage import commit as commit_module
from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import Deletions, Latency, Ledger, read_ledger
from recsys_data.storage.parquet import Selection, write_days
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows


def test_a_ledger_is_read_as_it_was_committed(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    assert read_ledger(table) == Ledger()
    latencies = (Latency(1767225600.123, 5, (0.1,) * 10),)
    ledger = Ledger({0: 7, 3: 2**40}, 10, 5, 3, 2, 1, 5, latencies)
    commit(table, Ledger(), ledger, [])
    stored = read_ledger(open_notes().table("notes"))
    assert msgspec.structs.replace(stored, token="") == ledger
    assert stored.token
    assert stored.balanced
    assert not msgspec.structs.replace(stored, read=11).balanced


def test_writers_that_start_from_one_position_do_not_both_commit(open_notes: OpenLake) -> None:
    append(open_notes().table("notes"), rows(("a", 0)), 1)

    def race(number: int) -> bool:
        table = open_notes().table("notes")
        base = read_ledger(table)
        files = write_days(table, [Selection.all(rows((f"b{number}", number)))])
        try:
            commit(table, base, Ledger({0: base.positions[0] + 1}, rows=base.rows + 1), files)
        except PositionMoved:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, range(4)))
    table = open_notes().table("notes")
    assert sum(won) >= 1
    assert read_ledger(table).positions == {0: 1 + sum(won)}
    assert len(table.scan().to_arrow()) == read_ledger(table).rows == 1 + sum(won)


def test_many_commits_in_any_interleaving_lose_nothing_and_double_nothing(open_notes: OpenLake) -> None:
    rng = random.Random(1)
    tables = [open_notes().table("notes") for _ in range(3)]
    moved = 0
    for _ in range(12):
        table = rng.choice(tables)
        base = read_ledger(table)
        position = base.positions.get(0, 0)
        files = write_days(table, [Selection.all(rows((f"e{position}", position % 3)))])
        try:
            commit(table, base, Ledger({0: position + 1}, rows=position + 1), files)
        except PositionMoved as error:
            assert "What was read here is read again from there" in str(error)
            moved += 1
            table.refresh()
    stored = open_notes().table("notes")
    count = read_ledger(stored).positions[0]
    assert 0 < moved < 12
    assert count == 12 - moved
    assert sorted(stored.scan().to_arrow()["event_id"].to_pylist()) == sorted(f"e{n}" for n in range(count))


def test_a_catalog_that_cannot_be_written_is_tried_again_and_then_reported(
    open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_notes().table("notes")
    commit_table, left = SqlCatalog.commit_table, [2]

    def locked(*args: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return commit_table(*args)

    monkeypatch.setattr(commit_module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(SqlCatalog, "commit_table", locked)
    append(table, rows(("a", 0)), 1)
    assert left == [0]
    left[0] = 10**6
    with pytest.raises(Transient, match="notes could not be committed in 20 attempts: .*database is locked"):
        append(table, rows(("b", 0)), 2)
    left[0] = 0
    stored = open_notes().table("notes")
    assert read_ledger(stored).positions == {0: 1}
    assert stored.scan().to_arrow()["event_id"].to_pylist() == ["a"]


def test_rows_are_written_by_day_and_columns_may_come_in_any_order(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    given = rows(("a", 1.5), ("b", 0), ("c", 1), ("d", -1e-9), note=["x", None, "z", ""]).select([2, 1, 0])
    files = write_days(table, [Selection.all(given)])
    days = {date.fromordinal(date(1970, 1, 1).toordinal() + file.partition[0]): file.record_count for file in files}
    assert days == {date(2025, 12, 31): 1, date(2026, 1, 1): 1, date(2026, 1, 2): 2}
    assert len(table.scan().to_arrow()) == 0, "rows were visible before their commit"
    commit(table, Ledger(), Ledger({0: 4}), files)
    found = table.scan().to_arrow().sort_by("event_id").to_pylist()
    assert [(row["event_id"], row["note"]) for row in found] == [("a", "x"), ("b", None), ("c", "z"), ("d", "")]
    filtered = table.scan(row_filter="event_ts >= '2026-01-02T00:00:00+00:00'")
    assert len(list(filtered.plan_files())) == 1
    assert write_days(table, [Selection.all(rows())]) == []


def test_deletions_keep_the_names_under_which_earlier_versions_stored_them() -> None:
    stored = b'{"discarded":1,"retired":2,"retired_before":"2026-01-02","token":"t"}'
    deletions = msgspec.json.decode(stored, type=Deletions)
    assert deletions == Deletions(discarded=1, expired=2, expired_before=date(2026, 1, 2), token="t")
    assert msgspec.json.encode(deletions) == stored
