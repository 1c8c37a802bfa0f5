"""The online store follows a lake whatever happens to it, and parity finds it when it does not."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest.mock import patch

import duckdb
import pytest

from recsys_data.days import to_microseconds
from recsys_data.errors import Permanent, Transient
from recsys_data.features import parity
from recsys_data.features.parity import Reading, Served
from recsys_data.serving.online import updater as updating
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.updater import Updater
from recsys_data.serving.online.verification import verify
from recsys_data.serving.online_store.lmdb import LmdbStore
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data_tests.serving.conftest import builtin_contracts
from recsys_data_tests.support.serving import ServingShop
from recsys_data_tests.support.shop import START

NOW = START + timedelta(days=3)
ASKED = {
    "user_activity": [["u1"], ["u2"], ["nobody"]],
    "item_engagement": [["i1"], ["i2"]],
    "user_item": [["u1", "i1"], ["u2", "i2"], ["u2", "i1"]],
}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ServingShop]:
    made = ServingShop(tmp_path / "data", builtin_contracts(), partitions=2)
    made.happen(*EVENTS)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with closing(LmdbStore(tmp_path / "online")) as made:
        yield made


EVENTS = [
    (0, "view", "u1", "i1"),
    (1, "click", "u1", "i2"),
    (5, "purchase", "u1", "i2", {"price": 2.5, "currency": "EUR", "order_id": "o1", "quantity": 3}),
    (30, "view", None, "i1", {"anonymous_id": "a1"}),
    (47, "identify", "u2", None, {"anonymous_id": "a1"}),
    (48, "rating", "u2", "i1", {"rating": 4}),
]


def follow(shop: ServingShop, store: LmdbStore) -> Updater:
    return Updater(shop.open_lake(), store, clock=lambda: to_microseconds(NOW), slice_rows=2)


def reader(shop: ServingShop, store: LmdbStore, at: datetime = NOW) -> FeatureReader:
    return FeatureReader(store, follow(shop, store).views, clock=lambda: to_microseconds(at))


def served(shop: ServingShop, store: LmdbStore, at: datetime = NOW) -> Reading:
    """What answers would say that they used."""
    found = reader(shop, store, at)
    read = found.read(ASKED)
    rows = []
    for view, keys in ASKED.items():
        for key, values in zip(keys, read.tables[view].to_pylist(), strict=True):
            entity = dict.fromkeys(("user_id", "item_id")) | dict(zip(found.views[view].view.entity, key, strict=True))
            features = json.loads(json.dumps(values, default=lambda one: one.isoformat().replace("+00:00", "Z")))
            rows.append(Served(entity, {f"{view}__{name}": value for name, value in features.items()}))
    positions = {name: stream.positions for name, stream in read.position.streams.items()}
    return Reading(positions, read.moments, rows)


def differences(shop: ServingShop, reading: Reading) -> list[str]:
    return [one.feature for one in parity.compared(shop.open_lake(), [reading], shown=1000).differences]


def differing(shop: ServingShop, store: LmdbStore) -> list[bytes]:
    """Keys that differ from a rebuild of the same moment, at which windows still reach the events."""
    then = partial(Updater, clock=lambda: to_microseconds(NOW))
    with patch("recsys_data.serving.online.verification.Updater", then):
        return verify(shop.open_lake(), store).different


def test_what_was_served_is_what_the_lake_gives(shop: ServingShop, store: LmdbStore) -> None:
    done = follow(shop, store).update()
    assert (done.rows, done.rebuilt) == (6, "it was empty")
    reading = served(shop, store)
    found = parity.compared(shop.open_lake(), [reading])
    assert (found.readings, found.different) == (1, 0)
    assert found.values == sum(len(one.features) for one in reading.served)
    (row,) = [one for one in reading.served if one.entity == {"user_id": "u2", "item_id": "i1"}]
    # What the browser did before it was known to be this user's counts.
    assert (row.features["user_item__times_seen"], row.features["user_item__rating"]) == (1, 4.0)


def test_answers_are_compared_as_of_their_positions(shop: ServingShop, store: LmdbStore) -> None:
    follow(shop, store).update()
    before = served(shop, store)
    shop.happen((2, "view", "u1", "i1"), (49, "view", "u2", "i2"))
    assert differences(shop, before) == []
    assert follow(shop, store).update().rows == 2
    after = served(shop, store)
    assert after.positions != before.positions
    assert differences(shop, after) == []
    # With the values of before, the positions of after are wrong.
    assert "user_item__times_seen" in differences(shop, after._replace(served=before.served))


def test_an_updater_that_starts_again_applies_every_row_once(shop: ServingShop, store: LmdbStore) -> None:
    follow(shop, store).update()
    shop.happen(
        (50, "view", "u1", "i1"), (51, "identify", "u1", None, {"anonymous_id": "a9"}), (52, "view", "u2", "i2")
    )
    one = follow(shop, store)
    with patch.object(LmdbStore, "commit", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        one.update()
    assert follow(shop, store).update().rows == 3
    assert follow(shop, store).update().keys == 0
    assert differing(shop, store) == []
    assert differences(shop, served(shop, store)) == []


def test_values_do_not_depend_on_how_many_updates_they_came_with(shop: ServingShop, store: LmdbStore) -> None:
    then = partial(Updater, clock=lambda: to_microseconds(NOW))
    for minute in (50, 51, 52):
        then(shop.open_lake(), store).update()
        shop.happen((minute, "click", "u1", "i1"), (minute, "purchase", "u1", "i2", {"price": 1.0, "currency": "EUR"}))
    then(shop.open_lake(), store).update()
    assert differing(shop, store) == []


def test_rows_that_are_deleted_lead_to_a_rebuild(shop: ServingShop, store: LmdbStore) -> None:
    one = follow(shop, store)
    one.update()
    table = shop.open_lake().table("interactions")

    def without_first_day(table):  # as retention does
        first = min(task.file.partition[0] for task in table.scan().plan_files())
        return Change([task.file for task in table.scan().plan_files() if task.file.partition[0] == first], [])

    compare_and_set(table, without_first_day)
    done = one.update()
    assert done.rebuilt and "rows were deleted" in done.rebuilt
    assert differing(shop, store) == []
    assert differences(shop, served(shop, store)) == []
    assert one.update().rebuilt is None


def test_items_are_as_the_catalogue_has_them(shop: ServingShop, store: LmdbStore) -> None:
    shop.list_items({"i1": {"price": 5, "title": "Lamp"}})
    one = follow(shop, store)
    one.update()
    (row,) = reader(shop, store).read({"item_attributes": [["i1"]]}).tables["item_attributes"].to_pylist()
    assert (row["title"], str(row["price"])) == ("Lamp", "5.0000")
    shop.list_items({"i2": {"price": 7, "title": "Mug"}})
    assert one.update().keys
    rows = reader(shop, store).read({"item_attributes": [["i1"], ["i2"]]}).tables["item_attributes"].to_pylist()
    assert [row["title"] for row in rows] == [None, "Mug"]


def lost_update(shop: ServingShop, store: LmdbStore) -> None:
    """An update that moves the positions and writes nothing."""
    with patch.object(updating, "pieces_after", return_value={}):
        follow(shop, store).update()


def doubled_update(shop: ServingShop, store: LmdbStore) -> None:
    """An update that applies its rows twice."""
    once = updating.pieces_after

    def twice(connection, layout, query, target, now):
        return once(connection, layout, f"({query}) UNION ALL ({query})", target, now)

    with patch.object(updating, "pieces_after", twice):
        follow(shop, store).update()


def wrong_window(shop: ServingShop, store: LmdbStore) -> None:
    """An update that takes hops of a day for all time."""
    once = updating.pieces_after

    def earlier(connection, layout, query, target, now):
        moved = f"SELECT * REPLACE (event_ts - INTERVAL 40 DAY AS event_ts) FROM ({query})"
        return once(connection, layout, moved, target, now)

    with patch.object(updating, "pieces_after", earlier):
        follow(shop, store).update()


@pytest.mark.parametrize("sabotage", [lost_update, doubled_update, wrong_window])
def test_parity_and_verification_find_sabotage(shop: ServingShop, store: LmdbStore, sabotage) -> None:
    follow(shop, store).update()
    shop.happen((55, "view", "u1", "i1"), (56, "click", "u2", "i2"))
    sabotage(shop, store)
    found = differences(shop, served(shop, store))
    assert {name.partition("__")[0] for name in found} >= {"user_activity"}
    assert differing(shop, store)


def test_what_impressions_say_is_read_back(shop: ServingShop, store: LmdbStore) -> None:
    follow(shop, store).update()
    reading = served(shop, store)
    said = {
        "read": {
            "moments": {"user_item": reading.moments["user_item"]},
            "positions": {name: {str(part): at for part, at in of.items()} for name, of in reading.positions.items()},
        },
        "features": {"user_item__times_seen": 1, "user_item__rating": None},
    }
    shop.happen((60, "impression", "u1", "i1", {"position": 1, "properties": said}))
    (found,) = parity.readings(shop.open_lake(), datetime(2026, 1, 1, tzinfo=UTC))
    assert found.positions == reading.positions
    assert [one.features for one in found.served] == [said["features"]]
    checked = parity.parity(shop.open_lake(), datetime(2026, 1, 1, tzinfo=UTC))
    assert (checked.values, checked.different) == (2, 0)


def test_files_that_maintenance_removed_are_tried_again(shop: ServingShop, store: LmdbStore) -> None:
    one = follow(shop, store)
    gone = duckdb.IOException("IO Error: No files found that match the pattern")
    for call in (one.update, one.rebuild):
        with (
            patch.object(updating, "gather", side_effect=gone),
            pytest.raises(Transient, match="not be read: IO Error"),
        ):
            call()
    assert one.update().rows == 6


def test_rows_that_no_position_leads_to_are_reported(shop: ServingShop, store: LmdbStore) -> None:
    with (
        patch.object(updating, "_days", return_value={}),
        pytest.raises(Permanent, match="cannot be made from"),
    ):
        follow(shop, store).update()
    assert store.position() is None
