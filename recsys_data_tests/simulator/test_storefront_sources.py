"""The shop's database and its exports: the same users and items as in the events, changing as time goes on."""

import csv
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.errors import Transient
from recsys_data.simulator.epochs import DAY, epochs, hash_noise
from recsys_data.simulator.shop.customers import customers
from recsys_data.simulator.shop.database import bring_up_to_date
from recsys_data.simulator.shop.exports import make_day, make_missing
from recsys_data.simulator.world import World, build

TODAY = date(2026, 11, 25)
NOW = int(datetime(2026, 11, 25, 10, tzinfo=UTC).timestamp())
WHO = np.arange(50)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def world() -> World:
    return build(users=2000, guests=50, items=1500)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, world: World) -> Callable[[str, date], dict[str, Row]]:
    """The rows of a system's export of a day, by key."""
    folder = tmp_path_factory.mktemp("exports")

    def rows(system: str, day: date) -> dict[str, Row]:
        if not (folder / "cms" / day.isoformat()).exists():
            make_day(folder, world, day)
        (path,) = (folder / system / day.isoformat()).iterdir()
        with path.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file)) if system == "crm" else [json.loads(line) for line in file]
        keyed = {row.get("sku") or row["customer_no"]: row for row in found}
        assert len(keyed) == len(found)
        return keyed

    return rows


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path) -> dict[str, Row]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in database.execute("SELECT * FROM customers")}


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**33), st.integers(0, 10**7))
@settings(deadline=None)
def test_stretches_follow_each_other_without_gap_or_overlap(seed, moment, later):
    here, there = (epochs(seed, "price", WHO, (2, 9), when) for when in (moment, moment + later))
    for when, found in ((moment, here), (moment + later, there)):
        assert (found.began <= when).all() and (when < found.began + found.length).all()
    assert (there.length == here.length).all()
    assert (there.began - here.began == (there.number - here.number) * here.length).all()


def test_luck_is_even_and_of_each_question_its_own():
    draws = hash_noise(2026, "a", np.arange(20_000), 3)
    assert (draws >= 0).all() and (draws < 1).all()
    assert np.bincount((draws * 10).astype(int)).min() > 1_850
    for other in (hash_noise(2026, "b", np.arange(20_000), 3), hash_noise(2026, "a", np.arange(20_000), 4)):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 0.03


def test_a_day_is_the_same_bytes_whenever_it_is_made(tmp_path, world):
    for name, days in (("a", (TODAY,)), ("b", (TODAY + timedelta(days=30), TODAY))):
        for day in days:
            make_day(tmp_path / name, world, day)
    again = {name: data for name, data in files_below(tmp_path / "b").items() if TODAY.isoformat() in name}
    assert files_below(tmp_path / "a") == again
    assert set(again) == {
        f"crm/{TODAY}/customers.csv",
        f"pim/{TODAY}/items.jsonl",
        f"cms/{TODAY}/texts.jsonl",
    }


def test_another_shop_has_other_days(tmp_path, world):
    other = build(seed=7, users=2000, guests=50, items=1500)
    for name, shop in (("a", world), ("b", other)):
        make_day(tmp_path / name, shop, TODAY)
    a, b = files_below(tmp_path / "a"), files_below(tmp_path / "b")
    assert all(a[name] != b[name] for name in a)


def test_exports_and_database_have_the_users_and_items_of_the_events(tmp_path, world, exported):
    items, users = set(world.items.item_id), set(world.people.user_id[: world.users])
    for system, ids in (("pim", items), ("cms", items), ("crm", users)):
        there = set(exported(system, TODAY))
        assert there < ids
        assert len(there) > 0.95 * len(ids)
    assert exported("pim", TODAY).keys() == exported("cms", TODAY).keys()
    bring_up_to_date(tmp_path / "shop.db", world, NOW - NOW % DAY + DAY)
    assert table(tmp_path / "shop.db").keys() == exported("crm", TODAY).keys()


@pytest.mark.parametrize(
    ("system", "field"),
    [("pim", "price"), ("pim", "stock"), ("cms", "summary"), ("crm", "segments"), ("crm", "marketing")],
)
def test_from_day_to_day_a_little_of_everything_changes(exported, system, field):
    changed = 0
    for ago in range(10):
        before, after = (exported(system, TODAY - timedelta(days=days)) for days in (ago + 1, ago))
        both = before.keys() & after.keys()
        differ = sum(before[key][field] != after[key][field] for key in both)
        changed += differ
        assert differ < 0.1 * len(both)
    assert changed > 0


@pytest.mark.parametrize("system", ["pim", "crm"])
def test_items_and_users_come_and_go_and_come_back(exported, system):
    days = [set(exported(system, TODAY - timedelta(days=ago))) for ago in range(30, -1, -1)]
    pairs = list(zip(days, days[1:], strict=False))
    left, came = set[str](), set[str]()
    for before, after in pairs:
        assert len(before ^ after) < 0.05 * len(before)
        came |= after - before
        left |= before - after
    assert left and came
    assert left & came


def test_what_an_item_says_of_its_change_is_true(exported):
    before, after = exported("pim", TODAY - timedelta(days=1)), exported("pim", TODAY)
    seen = 0
    for sku in before.keys() & after.keys():
        old, new = before[sku], after[sku]
        differs = (old["price"], old["stock"]) != (new["price"], new["stock"])
        today = new["changed_at"].startswith(TODAY.isoformat())
        seen += differs
        assert differs <= today
        assert old["changed_at"] <= new["changed_at"]
    assert seen


def test_prices_are_decimal_text_and_product_numbers_check(exported):
    for row in exported("pim", TODAY).values():
        assert Decimal(row["price"]["amount"]) > 0
        assert row["price"]["amount"][-3] == "."
        digits = [int(digit) for digit in row["codes"]["gtin"]]
        assert sum(digits[::2] + [3 * digit for digit in digits[1::2]]) % 10 == 0


def test_only_days_that_are_over_are_exported_and_each_once(tmp_path, world):
    five = [date(2026, 11, day) for day in range(20, 25)]
    assert make_missing(tmp_path, world, TODAY) == five
    before = files_below(tmp_path)
    assert make_missing(tmp_path, world, TODAY) == []
    (tmp_path / "cms" / "2026-11-22" / "texts.jsonl").unlink()
    assert make_missing(tmp_path, world, TODAY) == [date(2026, 11, 22)]
    assert files_below(tmp_path) == before
    assert make_missing(tmp_path, world, TODAY + timedelta(days=1)) == [TODAY]


def test_the_database_is_the_same_however_often_it_was_brought_up_to_date(tmp_path, world):
    bring_up_to_date(tmp_path / "once.db", world, NOW)
    for moment in range(NOW - 40 * DAY, NOW + 1, 4 * DAY):
        bring_up_to_date(tmp_path / "often.db", world, moment)
    assert table(tmp_path / "often.db") == table(tmp_path / "once.db")


def test_only_what_changed_is_written(tmp_path, world):
    path = tmp_path / "shop.db"
    assert bring_up_to_date(path, world, NOW) == len(customers(world, NOW))
    before = table(path)
    assert bring_up_to_date(path, world, NOW) == 0
    written = bring_up_to_date(path, world, NOW + DAY)
    after = table(path)
    differ = sum(before.get(key) != after.get(key) for key in before.keys() | after.keys())
    assert 0 < written == differ < 0.1 * len(before)


def test_customers_register_order_lapse_and_close(world):
    states = {int(state) for days in range(0, 60, 20) for state in set(customers(world, NOW + days * DAY).state)}
    assert states == set(range(5))
    before, after = customers(world, NOW), customers(world, NOW + 20 * DAY)
    old = dict(
        zip(before.person.tolist(), zip(before.signed_up, before.orders, before.cents, strict=True), strict=True)
    )
    kept = 0
    for person, since, orders, cents in zip(
        after.person.tolist(), after.signed_up, after.orders, after.cents, strict=True
    ):
        if person in old and old[person][0] == since:
            kept += orders > old[person][1]
            assert (orders >= old[person][1]) and (cents >= old[person][2])
            assert (orders > old[person][1]) == (cents > old[person][2])
    assert kept
    assert (before.modified <= NOW).all() and (before.last_order <= NOW).all()
    ordered = before.orders > 0
    assert (before.first_order[ordered] >= before.signed_up[ordered]).all()
    assert (before.last_order[~ordered] == 0).all()


def test_a_reader_of_the_database_keeps_its_snapshot_while_it_changes(tmp_path, world):
    path = tmp_path / "shop.db"
    bring_up_to_date(path, world, NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT sum(orders) FROM customers").fetchone()
        assert bring_up_to_date(path, world, NOW + DAY)
        assert reader.execute("SELECT sum(orders) FROM customers").fetchone() == before
        reader.execute("COMMIT")
        assert reader.execute("SELECT sum(orders) FROM customers").fetchone() != before


def test_a_damaged_database_is_explained(tmp_path, world):
    path = tmp_path / "shop.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Transient, match=r"shop\.db cannot be brought up to date: .*remove it"):
        bring_up_to_date(path, world, NOW)
