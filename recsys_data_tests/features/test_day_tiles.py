"""Spark computes the tiles that DuckDB computes: row by row, floats to 1e-9 of their value."""

import random

import pytest
from msgspec.structs import replace

from recsys_data.contracts import load_contracts
from recsys_data.contracts.features.check import resolve
from recsys_data.contracts.features.datasets import stream_of
from recsys_data.contracts.model import tiles_name
from recsys_data.days import day_number
from recsys_data.features.day_tiles import day_tiles
from recsys_data.features.lake import FeatureSources, join_features, open_features, views_of
from recsys_data.features.materialize import refresh_view
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import open_lake
from recsys_data_tests.support.shop import START, Shop
from recsys_data_tests.support.spark.sessions import spark_settings

pytestmark = [
    pytest.mark.integration,
    # py4j opens a connection for each thread, and leaves it to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning"),
]
VIEWS = ("item_covisits", "item_engagement", "session", "user_activity", "user_item")
KINDS = ("view", "click", "impression", "add_to_cart", "purchase", "refund", "search", "rating")
DAY = day_number(START.date())


def events(count):
    """Events of two days, visitors without a user among them, with values that no binary fraction holds."""
    rng = random.Random(15)
    for number in range(count):
        kind = rng.choice(KINDS)
        more = {
            "session_id": f"s{rng.randrange(9)}",
            "query": f"Größe {rng.randrange(4)}" if kind == "search" else None,
        }
        if kind in ("purchase", "refund"):
            more |= {"value": rng.randrange(10_000) / 100, "quantity": rng.randrange(1, 4)}
        if kind == "rating":
            more |= {"rating": rng.randrange(1, 6)}
        user = f"u{rng.randrange(6)}" if number % 4 else None
        more["anonymous_id"] = f"a{rng.randrange(5)}"
        yield rng.random() * 47, kind, user, None if kind == "search" else f"i{rng.randrange(7)}", more


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    made = Shop(tmp_path_factory.mktemp("shop"), load_contracts(), partitions=2, **spark_settings())
    made.happen(*events(400))
    yield made
    made.close()


def same(one, other):
    return one == pytest.approx(other, rel=1e-9, abs=1e-12) if isinstance(one, float) else one == other


@pytest.fixture(scope="module")
def in_process(shop):
    """The same lake, with the other engine."""
    return open_lake(replace(shop.settings, engine="duckdb"), shop.contracts)


@pytest.mark.parametrize("name", VIEWS)
def test_tiles_are_the_same_row_by_row(shop, in_process, name):
    lake = shop.open_lake()
    found = []
    for one in (lake, in_process):
        features = FeatureSources(one)
        view = features.view(name)
        resolved = resolve(view, features.sources)
        with open_features() as connection:
            table = one.table(tiles_name(name))
            query = day_tiles(connection, features, view, stream_of(view) or "", resolved, table, DAY + 1)
            rows = connection.sql(
                f"SELECT {', '.join(field.name for field in table.schema().fields)} FROM ({query}) ORDER BY ALL"
            )
            found.append(rows.fetchall())
    by_spark, by_duckdb = found
    assert len(by_duckdb) > 5
    assert len(by_spark) == len(by_duckdb)
    for given, expected in zip(by_spark, by_duckdb, strict=True):
        assert all(map(same, given, expected)), f"{given}\n{expected}"


def test_every_view_of_events_is_compared(shop):
    views = {name: one.view for name, one in views_of(shop.lake).items()}
    assert sorted(VIEWS) == sorted(name for name, view in views.items() if view and stream_of(view))


def test_values_of_tiles_of_spark_are_those_of_a_join_over_events_in_duckdb(shop, in_process):
    name = "user_activity"
    updates = list(refresh_view(shop.open_lake(), shop.settings, name))
    assert [day for update in updates for day in update.days] == [DAY, DAY + 1]
    table = in_process.table(name)
    with open_features() as connection:
        stored = relation(table, data_files(table))
        spine = connection.sql(f"SELECT user_id, feature_ts FROM ({stored}) ORDER BY ALL")
        joined = join_features(in_process, connection, spine, [name], known="event_time", timestamp="feature_ts")
        expected = [row[:-1] for row in joined.fetchall()]
        columns = ", ".join(column.removeprefix(f"{name}__") for column in joined.columns[:-1])
        given = connection.sql(f"SELECT {columns} FROM ({stored}) ORDER BY user_id, feature_ts").fetchall()
    assert len(given) == 12
    for one, other in zip(given, expected, strict=True):
        assert all(map(same, one, other)), f"{one}\n{other}"
