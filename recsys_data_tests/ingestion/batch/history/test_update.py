"""What a history says of rows that change, go, come back, and of snapshots that come late, again, or are removed."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts import Contract
from recsys_data.errors import Permanent
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.update import overlaps
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data_tests.support.histories import COLUMNS, ID, Histories, day, moment, oracle, things

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


def reported(lake: Histories) -> list[tuple[Any, ...]]:
    """id, a, days from and to which it was known, columns that changed, whether it holds."""

    def days(at: Any) -> float | None:
        return at and (at - moment(0)) / timedelta(days=1)

    rows = [
        (r["id"], r["a"], days(r["valid_from"]), days(r["valid_to"]), r["changed"], r["is_current"])
        for r in lake.rows()
    ]
    return sorted(rows, key=lambda row: (row[0], row[2]))


def test_rows_are_opened_changed_closed_and_opened_again(lake: Histories) -> None:
    counts = []
    for number, rows in enumerate(THREE):
        lake.take(number, rows)
        brought = lake.bring()
        counts.append((brought.days, brought.by_day, brought.opened, brought.closed, brought.rows, brought.current))
    assert counts == [
        ([day(0)], {day(0): (2, 0)}, 2, 0, 2, 2),
        ([day(1)], {day(1): (1, 2)}, 1, 2, 3, 1),
        ([day(2)], {day(2): (2, 0)}, 2, 0, 5, 3),
    ]
    assert reported(lake) == [
        ("x", 1, 1, 2, [], False),
        ("x", 2, 2, None, ["a", "it's b"], True),
        ("y", None, 1, 2, [], False),
        ("y", None, 3, None, [], True),
        ("z", None, 3, None, [], True),
    ]
    brought = lake.bring()
    assert (brought.days, brought.by_day, brought.rows, brought.current) == ([], {}, 5, 3)


def test_days_brought_at_once_are_counted_each(three: Histories, tmp_path: Path, contract: Contract) -> None:
    other = Histories(tmp_path / "other", contract)
    other.replace((number, rows, moment(number + 1)) for number, rows in enumerate(THREE))
    brought = other.bring()
    assert brought.by_day == {day(0): (2, 0), day(1): (1, 2), day(2): (2, 0)}
    assert (brought.opened, brought.closed, brought.rows, brought.current) == (5, 2, 5, 3)
    assert reported(other) == reported(three)


def test_a_lake_without_snapshots_has_an_empty_history(lake: Histories) -> None:
    brought = lake.bring()
    assert (brought.days, brought.rows, brought.current, lake.rows()) == ([], 0, 0, [])


def test_only_the_days_from_the_first_difference_on_are_applied_again(three: Histories) -> None:
    three.take(1, THREE[0])
    assert three.bring().days == [day(1), day(2)]
    assert reported(three)[0] == ("x", 1, 1, 3, [], False)
    three.replace([(2, [], moment(3))])
    brought = three.bring()
    assert (brought.days, brought.rows, brought.current) == ([], 2, 2)
    assert reported(three) == [("x", 1, 1, None, [], True), ("y", None, 1, None, [], True)]
    three.replace([(0, [], moment(1)), (1, [], moment(1))])
    assert three.bring().rows == 0
    assert three.rows() == []


def test_a_database_read_and_a_folder_of_the_day_before_may_be_known_at_one_moment(lake: Histories) -> None:
    lake.take(0, THREE[0], moment(1))
    lake.take(1, THREE[1], moment(1))
    brought = lake.bring()
    assert brought.days == [day(1)]
    assert reported(lake) == [("x", 2, 1, None, [], True)]
    lake.take(0, THREE[2], moment(1))
    assert lake.bring().days == []


def test_snapshots_count_in_the_order_in_which_they_were_known(lake: Histories) -> None:
    lake.take(0, THREE[1], moment(5))
    lake.take(1, THREE[0], moment(2))
    assert lake.bring().days == [day(1), day(0)]
    assert reported(lake) == [
        ("x", 1, 2, 5, [], False),
        ("x", 2, 5, None, ["a", "it's b"], True),
        ("y", None, 2, 5, [], False),
    ]


def test_files_of_open_rows_are_replaced_and_those_of_closed_rows_stay(three: Histories) -> None:
    def files(current: bool) -> set[str]:
        table = three.open_lake().table("things_history")
        return {task.file.file_path for task in table.scan().plan_files() if task.file.partition[0] is current}

    before = files(True), files(False)
    three.take(3, THREE[1])
    three.bring()
    assert not files(True) & before[0]
    assert files(False) > before[1]
    before = files(True), files(False)
    three.take(4, THREE[1])
    brought = three.bring()
    assert (brought.days, brought.by_day, files(True), files(False)) == ([day(4)], {day(4): (0, 0)}, *before)


def test_every_type_is_compared_by_value_and_kept(tmp_path: Path) -> None:
    types = {"c": ("boolean", True, False), "d": ("date", day(1), day(2)), "e": ("timestamp", moment(1), moment(2))}
    types |= {"f": ("number", 0.1, float("nan")), "g": ("object", '{"k": 1}', '{"k": 2}')}
    columns = [{"name": name, "logicalType": kind} for name, (kind, *_) in types.items()]
    columns.append({"name": "h", "logicalType": "number", "physicalType": "decimal(18,4)"})
    columns.append({"name": "i", "logicalType": "array", "items": {"logicalType": "number"}})
    lake = Histories(tmp_path, things(tmp_path / "contracts", ID, *COLUMNS, *columns))
    types |= {"h": ("", Decimal("1.2345"), Decimal("1.2346")), "i": ("", [1.5, None], [None, 1.5])}
    types |= {"more": ("", [("k", None), ("l", "2")], [("k", "1"), ("l", "2")])}
    first = {"id": "x"} | {name: old for name, (_, old, _) in types.items()}
    second = {"id": "x"} | {name: new for name, (_, _, new) in types.items()}
    # Neither the order of a map's entries nor NaN is a change.
    for number, row in enumerate([first, first | {"more": [("l", "2"), ("k", None)]}, second, second, {"id": "x"}]):
        lake.take(number, [row])
        lake.bring()
    rows = sorted(lake.rows(), key=lambda row: row["valid_from"])
    assert [(row["valid_from"], row["changed"]) for row in rows] == [
        (moment(1), []),
        (moment(3), ["more", *"cdefghi"]),
        (moment(5), ["more", *"cdefghi"]),
    ]
    assert {name: rows[0][name] for name in first} == first


def test_a_key_of_several_columns_and_nothing_else(tmp_path: Path) -> None:
    lake = Histories(tmp_path, things(tmp_path / "contracts", ID, ID | {"name": "shop"}))
    lake.take(0, [{"id": "x", "shop": "1"}, {"id": "x", "shop": "2"}])
    lake.take(1, [{"id": "x", "shop": "2"}, {"id": "y", "shop": "1"}])
    assert lake.bring().by_day == {day(0): (2, 0), day(1): (1, 1)}
    assert overlaps(lake.lake, "things") == 0


def test_another_key_makes_the_history_anew(tmp_path: Path) -> None:
    shop = {"name": "shop", "logicalType": "string", "required": True}
    before = Histories(tmp_path, things(tmp_path / "old", ID, shop))
    before.take(0, [{"id": "x", "shop": "1"}])
    before.take(1, [{"id": "x", "shop": "2"}])
    before.bring()
    assert len(before.rows()) == 2
    after = Histories(tmp_path, things(tmp_path / "new", ID, shop | {"primaryKey": True}))
    brought = after.bring()
    assert brought.by_day == {day(0): (1, 0), day(1): (1, 1)}
    assert all(row["changed"] == [] for row in after.rows())


def test_a_snapshot_that_does_not_say_when_it_was_known_is_refused(lake: Histories) -> None:
    lake.take(0, THREE[0])
    lake.bring()
    before = lake.periods()
    for as_of in ([None], [moment(2), moment(3)], [moment(2), None]):
        lake.store([(1, [{"id": str(number), "as_of": at} for number, at in enumerate(as_of)])])
        with pytest.raises(Permanent, match="snapshot of 2026-01-02 in recsys.things .* Take the snapshot"):
            lake.bring()
        assert lake.periods() == before


def test_small_files_of_closed_rows_become_one(lake: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SMALL_FILES", 4)
    stored = {number: ([{"id": "x", "a": number}], moment(number + 1)) for number in range(12)}
    most = 0
    for number, (rows, as_of) in stored.items():
        lake.take(number, rows, as_of)
        lake.bring()
        files = [task.file for task in lake.lake.table("things_history").scan().plan_files()]
        most = max(most, sum(not file.partition[0] for file in files))
    assert most == 4
    assert lake.periods() == oracle(lake.contract, stored)


def test_upkeep_of_the_tables_changes_nothing(three: Histories) -> None:
    three.take(3, THREE[0])
    three.bring()
    before = three.periods()
    assert compact_day(three.lake.table("things_history"), False) == 2
    assert three.bring().days == []
    assert three.periods() == before
    three.take(1, THREE[2])
    three.bring()
    stored = {number: (rows, moment(number + 1)) for number, rows in enumerate([*THREE, THREE[0]])}
    assert three.periods() == oracle(three.contract, stored | {1: (THREE[2], moment(2))})


def test_a_broken_history_is_seen(three: Histories) -> None:
    assert overlaps(three.lake, "things") == 0
    table = three.lake.table("things_history")
    current = next(task.file for task in table.scan().plan_files() if task.file.partition[0])
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(current)
    # Three rows that reach into their doubles, and three keys with two current rows.
    assert overlaps(three.open_lake(), "things") == 6


def test_a_new_column_is_a_change_where_it_has_a_value(tmp_path: Path) -> None:
    before = Histories(tmp_path, things(tmp_path / "old", ID))
    before.take(0, [{"id": "x"}, {"id": "y"}])
    before.bring()
    after = Histories(tmp_path, things(tmp_path / "new", ID, COLUMNS[0]))
    after.take(1, [{"id": "x", "a": 1}, {"id": "y"}])
    after.bring()
    assert reported(after) == [
        ("x", None, 1, 2, [], False),
        ("x", 1, 2, None, ["a"], True),
        ("y", None, 1, None, [], True),
    ]
