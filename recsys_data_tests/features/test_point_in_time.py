import datetime
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recsys_data.contracts.features.check import resolve
from recsys_data.contracts.features.view import DAY, HOUR, MINUTE, Feature, FeatureView, Window
from recsys_data.errors import UserError
from recsys_data.features import aggregates, merging, point_in_time
from recsys_data.features.aggregates import Tiles
from recsys_data.features.point_in_time import join
from recsys_data.features.tiles import tiles
from recsys_data_tests.features.tables import RELATIONS, SOURCES, connect, fill, spine_of
from recsys_data_tests.features.worlds import MOMENTS, START, UUID, close, expected, feature, view_of, worlds


@pytest.fixture(scope="module")
def connection():
    with connect() as one:
        yield one


@pytest.mark.parametrize("entity", [("user_id",), ("item_id",), ("user_id", "item_id")], ids="/".join)
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(world=worlds(), commit=st.booleans(), until=MOMENTS)
def test_features_equal_the_oracle_from_rows_and_from_tiles(connection, entity, world, commit, until):
    events, merges, spine = world
    fill(connection, events, merges)
    view = view_of(entity)
    known = "commit" if commit else "event_time"
    relation = spine_of(connection, spine)
    direct = join(connection, relation, [view], SOURCES, RELATIONS, known=known)
    # Tiles hold whole hops only, so that more of them than `until` allows must change nothing.
    made = tiles(view, "events", SOURCES["events"], resolve(view, SOURCES), "FROM events")
    at = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=until)
    tiled = join(
        connection, relation, [view], SOURCES, RELATIONS, known=known, tiles={("v", "events"): Tiles(made, at)}
    )
    exact = [name for name in direct.columns if "decayed" not in name]
    rows, from_tiles = direct.select(*map(quoted, exact)).fetchall(), tiled.select(*map(quoted, exact)).fetchall()
    assert rows == from_tiles
    for joined in (direct, tiled):
        answers = [dict(zip(joined.columns, row, strict=True)) for row in joined.fetchall()]
        assert [(a["number"], a["user_id"], a["item_id"]) for a in answers] == [
            (n, *row[:2]) for n, row in enumerate(spine)
        ]
        for answer, row in zip(answers, spine, strict=True):
            wanted, flag = expected(view, row, events, merges, commit)
            wrong = {
                name: (answer[f"v__{name}"], value)
                for name, value in wanted.items()
                if not close(answer[f"v__{name}"], value)
            }
            assert not wrong
            assert answer["v__known"] == flag


def quoted(name):
    import duckdb

    return duckdb.ColumnExpression(name)


def event(ts, known=None, user: str | None = "u1", item="i1", kind="view", value=1.0, offset=0, anonymous=None):
    return {
        "user_id": user,
        "anonymous_id": anonymous,
        "item_id": item,
        "type": kind,
        "value": value,
        "quantity": 1,
        "ts": START + ts,
        "known": START + (ts if known is None else known),
        "partition": 0,
        "offset": offset,
    }


def answers(connection, spine, *views, **options):
    relation = spine_of(connection, [(user, item, START + t) for user, item, t in spine])
    joined = join(connection, relation, views, SOURCES, RELATIONS, **options)
    return [dict(zip(joined.columns, row, strict=True)) for row in joined.fetchall()]


ITEM = FeatureView(
    "item",
    ("item_id",),
    "events",
    (
        Feature("views", "count", window=Window("rolling", HOUR)),
        Feature("price", column="price", source="prices"),
        Feature("price_before", column="price", source="prices", delay=HOUR),
        Feature("per_view", expression="price / nullif(views, 0)"),
        Feature("doubled", expression="per_view * request.Number"),
    ),
    {"number": "INTEGER"},
)


def test_an_event_counts_after_its_moment_and_not_before_it_is_known(connection):
    fill(connection, [event(0, known=10)])
    spine = [("u1", "i1", t) for t in (0, 1, 9, 10, HOUR, HOUR + 1)]
    assert [one["item__views"] for one in answers(connection, spine, ITEM)] == [0, 0, 0, 1, 1, 0]
    imported = answers(connection, spine, ITEM, known="event_time")
    assert [one["item__views"] for one in imported] == [0, 1, 1, 1, 1, 0]
    assert [one["item__known"] for one in imported] == [False, True, True, True, True, True]


def test_a_history_gives_what_was_valid_and_expressions_come_last(connection):
    prices = [
        {"item_id": "i1", "price": 10.0, "valid_from": START, "valid_to": START + HOUR},
        {"item_id": "i1", "price": 12.0, "valid_from": START + 2 * HOUR, "valid_to": None},
    ]
    fill(connection, [event(-2), event(-1)], prices=prices)
    found = answers(connection, [("u1", "i1", t) for t in (-1, 0, HOUR - 1, HOUR, 2 * HOUR)], ITEM)
    assert [one["item__price"] for one in found] == [None, 10.0, 10.0, None, 12.0]
    assert [one["item__price_before"] for one in found] == [None, None, None, 10.0, None]
    assert [one["item__per_view"] for one in found] == [None, 5.0, 10.0, None, None]
    # The numbers of the rows are 0 to 4.
    assert [one["item__doubled"] for one in found] == [None, 5.0, 20.0, None, None]


def test_two_states_at_once_are_refused(connection):
    prices = [
        {"item_id": "i1", "price": 1.0, "valid_from": START, "valid_to": None},
        {"item_id": "i1", "price": 2.0, "valid_from": START + 1, "valid_to": None},
    ]
    fill(connection, [], prices=prices)
    with pytest.raises(UserError, match="Two rows of prices are valid at once"):
        answers(connection, [("u1", "i1", 0)], ITEM)


@pytest.mark.parametrize("long", [0, 100])
def test_rows_of_the_spine_come_back_once_and_in_order(connection, monkeypatch, long):
    monkeypatch.setattr(point_in_time, "LONG", long)
    fill(connection, [event(0), event(1, user="u2")])
    user = FeatureView("user", ("user_id",), "events", (Feature("views", "count"),))
    spine = [("u2", "i1", 5), (None, "i1", 5), ("u1", None, 5), ("u2", "i1", 5), ("u9", "i9", 5)]
    found = answers(connection, spine, ITEM, user)
    assert [(one["number"], one["user_id"], one["item_id"]) for one in found] == [
        (n, *row[:2]) for n, row in enumerate(spine)
    ]
    assert [one["user__views"] for one in found] == [1, 0, 1, 1, 0]
    assert [one["user__known"] for one in found] == [True, False, True, True, False]
    assert [one["item__views"] for one in found] == [2, 2, 0, 2, 0]


def test_columns_and_features_may_have_any_names(connection):
    fill(connection, [event(0)])
    names = ("e", "k", "m", "n", "t", "lo", "hi", "a", "b", "level", "rank", "s", "spine")
    view = FeatureView("v", ("item_id",), "events", tuple(Feature(name, "count") for name in names))
    columns = ", ".join(f"{number} AS {name}" for number, name in enumerate(names))
    spine = connection.sql(f"SELECT 'i1' AS item_id, make_timestamptz({START + 1}) AS timestamp, {columns}")
    (row,) = join(connection, spine, [view], SOURCES, RELATIONS).fetchall()
    assert row[2:] == (*range(len(names)), *[1] * len(names), True)


def test_an_empty_spine_gives_no_rows(connection):
    fill(connection, [event(0)])
    assert answers(connection, [], ITEM) == []


def test_a_missing_column_of_the_spine_is_named(connection):
    fill(connection, [])
    spine = connection.sql("SELECT 'i1' AS item_id, now() AS timestamp")
    with pytest.raises(UserError, match="no column number, which item needs; it has item_id, timestamp"):
        join(connection, spine, [ITEM], SOURCES, RELATIONS)


def test_computing_in_parts_changes_nothing(connection, monkeypatch):
    events = [event(n * MINUTE, item=f"i{n % 3}", kind=f"t{n}", offset=n) for n in range(30)]
    fill(connection, events)
    view = FeatureView(
        "v", ("item_id",), "events", (Feature("last", "last_n", "type", n=3, window=Window("rolling", HOUR)),)
    )
    spine = [("u1", f"i{n % 4}", n * MINUTE) for n in range(40)]
    whole = answers(connection, spine, view)
    assert whole[31]["v__last"] is None
    assert whole[30]["v__last"] == ["t29", "t26", "t23"]
    # Four moments at a time, so that entities are cut too.
    monkeypatch.setattr(aggregates, "ELEMENTS", 12)
    assert answers(connection, spine, view) == whole


def test_small_batches_change_nothing(connection, monkeypatch):
    functions = ("count", "sum", "stddev", "max", "last", "last_n", "approx_count_distinct", "decayed_sum")
    features = [feature(one, window) for one in functions for window in (Window("rolling", HOUR), Window())]
    view = FeatureView("v", ("item_id",), "events", tuple(features))
    fill(connection, [event(n * MINUTE % (3 * HOUR), item=f"i{n % 3}", value=n / 7, offset=n) for n in range(90)])
    spine = [("u1", f"i{n % 4}", n * 7 * MINUTE) for n in range(40)]
    whole = answers(connection, spine, view)
    assert whole[39]["v__count_lifetime_0_0_False"] == 0
    assert whole[38]["v__count_lifetime_0_0_False"] == 30
    monkeypatch.setattr(aggregates, "BATCH_ROWS", 7)
    monkeypatch.setattr(merging, "SLICE", 3)
    monkeypatch.setattr(merging, "CANDIDATES", 5)
    monkeypatch.setattr(merging, "CELLS", 0)
    found = answers(connection, spine, view)
    decayed = [name for name in whole[0] if "decayed" in name]
    for one, other in zip(whole, found, strict=True):
        assert [one.pop(name) for name in decayed] == pytest.approx([other.pop(name) for name in decayed])
    assert found == whole


def test_sums_of_great_numbers_are_exact(connection):
    # Cast to decimals without loss.
    great = 2.0**46
    values = [great, great - 256, -great, 0.25, -great, 2.0**31, -(2.0**45)]
    fill(connection, [event(n, value=value, offset=n) for n, value in enumerate(values)])
    view = FeatureView("v", ("item_id",), "events", (Feature("s", "sum", "value"),))
    found = answers(connection, [("u1", "i1", n + 1) for n in range(len(values))], view)
    exact = [float(sum(Fraction(str(value)) for value in values[: n + 1])) for n in range(len(values))]
    assert [one["v__s"] for one in found] == exact


def test_a_sum_that_fits_no_decimal_is_refused(connection):
    fill(connection, [])
    connection.execute(
        "INSERT INTO events (item_id, value, event_ts, ingested_at, log_partition, log_offset) SELECT 'i1', "
        f"99999999999999, make_timestamptz({START}), make_timestamptz({START}), 0, n FROM range(200) t(n)"
    )
    view = FeatureView("v", ("item_id",), "events", (Feature("q", "stddev", "value"),))
    with pytest.raises(UserError, match='A sum of "value" does not fit 38 digits'):
        answers(connection, [("u1", "i1", 1)], view)


@pytest.mark.parametrize("function", ["first", "last", "min", "max"])
@pytest.mark.parametrize("column", [UUID, "quantity::HUGEINT", "make_time(log_offset, 2, 3.5)", "value > 1", "type"])
def test_values_of_any_type_come_back(connection, function, column):
    fill(connection, [event(0, kind="a"), event(1, kind="b", value=2.0, offset=1)])
    view = FeatureView("v", ("item_id",), "events", (Feature("x", function, column),))
    joined = join(connection, spine_of(connection, [("u1", "i1", START + 5)]), [view], SOURCES, RELATIONS)
    assert joined.types[-2] == connection.sql(f"SELECT {column} FROM events").types[0]
    aggregate = {"first": "arg_min", "last": "arg_max"}.get(function)
    wanted = f"{aggregate}({column}, event_ts)" if aggregate else f"{function}({column})"
    assert joined.fetchall()[0][-2] == connection.execute(f"SELECT {wanted} FROM events").fetchall()[0][0]


def test_a_sketch_counts_thousands_within_its_error(connection):
    fill(connection, [])
    connection.execute(
        "INSERT INTO events (user_id, item_id, event_ts, ingested_at, log_partition, log_offset) "
        f"SELECT 'u' || n % 5000, 'i1', make_timestamptz({START}), make_timestamptz({START}), 0, n "
        "FROM range(10000) t(n)"
    )
    view = FeatureView("v", ("item_id",), "events", (Feature("users", "approx_count_distinct", "user_id"),))
    ((found),) = answers(connection, [("u1", "i1", 1)], view)
    assert found["v__users"] == pytest.approx(5000, rel=0.2)


def test_numbers_that_fit_no_decimal_do_not_count(connection):
    fill(connection, [event(0, value=float("nan")), event(1, value=1e300), event(2, value=2.5)])
    view = FeatureView("v", ("item_id",), "events", (Feature("s", "sum", "value"), Feature("a", "avg", "value")))
    (found,) = answers(connection, [("u1", "i1", 5)], view)
    assert (found["v__s"], found["v__a"]) == (2.5, 2.5)


def test_tiles_of_a_day_depend_on_that_day_alone(connection):
    late = [event(DAY + 5, known=3 * DAY), event(DAY + 6), event(10), event(-5)]
    fill(connection, late)
    view = view_of(("user_id",))
    resolved = resolve(view, SOURCES)
    columns = ", ".join(f'"{name}"' for name in connection.sql(tiles_of(view, resolved, "FROM events")).columns)
    day = f"event_ts >= make_timestamptz({START + DAY})"
    whole = connection.execute(
        f"SELECT {columns} FROM ({tiles_of(view, resolved, 'FROM events')}) "
        f"WHERE tile_ts >= make_timestamptz({START + DAY}) ORDER BY ALL"
    ).fetchall()
    alone = connection.execute(
        f"SELECT {columns} FROM ({tiles_of(view, resolved, f'FROM events WHERE {day}')}) ORDER BY ALL"
    ).fetchall()
    assert whole == alone
    assert len(alone) == 2


def tiles_of(view, resolved, query):
    return tiles(view, "events", SOURCES["events"], resolved, query)
