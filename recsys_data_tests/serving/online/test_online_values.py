"""What the online store gives at any moment, whatever came in which order, equals the oracle of features."""

from functools import partial

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recsys_data.contracts.features.view import DAY, HOUR, MINUTE, Feature, FeatureView, Window
from recsys_data.days import from_microseconds
from recsys_data.features.lake import MERGED
from recsys_data.serving.online import owners
from recsys_data.serving.online.layout import OnlineView, online_view
from recsys_data.serving.online.position import KEY, Position, encode
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.updater import pieces_after
from recsys_data_tests.features.tables import SOURCES, connect, fill
from recsys_data_tests.features.worlds import MOMENTS, START, close, expected, view_of, worlds


class Memory(dict):
    """As much of a store as is read."""

    def get_many(self, keys):
        return [self.get(key) for key in keys]


def kept(view):
    found = online_view(view, SOURCES)
    assert isinstance(found, OnlineView)
    return found


def apply(connection, store, view, rows, now):
    for layout in view.streams:
        for key, value in pieces_after(connection, layout, rows, store, now).items():
            if value is None:
                store.pop(key, None)
            else:
                store[key] = value
    store[KEY] = encode(Position({view.view.name: view.digest}, moment=now))


@pytest.fixture(scope="module")
def connection():
    with connect() as one:
        yield one


@pytest.mark.parametrize("entity", [("user_id",), ("item_id",), ("user_id", "item_id")], ids="/".join)
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(world=worlds(), clocks=st.lists(MOMENTS, min_size=1, max_size=4), later=st.integers(0, 3 * DAY))
def test_values_equal_the_oracle_after_every_batch(connection, entity, world, clocks, later):
    events, merges, _ = world
    fill(connection, events, merges)
    view = kept(view_of(entity))
    store = Memory()
    for number, now in enumerate(sorted(clocks)):
        # Each batch holds the next events of the log, whenever they happened.
        first, last = (len(events) * at // len(clocks) for at in (number, number + 1))
        apply(connection, store, view, f"FROM events WHERE log_offset >= {first} AND log_offset < {last}", now)
        known = merges[: len(merges) * (number + 1) // len(clocks)]
        store |= owners.changed(store.get_many, [(m["anonymous_id"], m["user_id"], m["known_at"]) for m in known])
        asked = [(user, item) for user in ("u1", "u2", "u3") for item in ("i1", "i2")]
        keys = [[{"user_id": user, "item_id": item}[name] for name in entity] for user, item in asked]
        for moment in (now, now + later):
            read = FeatureReader(store, {"v": view}, clock=partial(int, moment)).read({"v": keys})
            for (user, item), row in zip(asked, read.tables["v"].to_pylist(), strict=True):
                wanted, flag = expected(view.view, (user, item, moment), events[:last], known, False)
                # Whoever knew an anonymous id before others did is left out of the online store.
                assert row["known"] <= flag
                wrong = {name: (row[name], value) for name, value in wanted.items() if not close(row[name], value)}
                assert not wrong


def events_at(*moments, **about):
    return [
        {"user_id": "u1", "anonymous_id": None, "item_id": "i1", "type": "view", "value": 1.5, "quantity": 2}
        | {"ts": at, "known": at, "partition": 0, "offset": number}
        | about
        for number, at in enumerate(moments)
    ]


def test_what_happens_in_the_future_waits_until_it_has_happened(connection):
    fill(connection, events_at(START, START + HOUR))
    view = kept(FeatureView("v", ("user_id",), "events", (Feature("n", "count"), Feature("s", "sum", "value"))))
    store = Memory()
    apply(connection, store, view, "FROM events", START + MINUTE)

    def at(moment):
        (row,) = FeatureReader(store, {"v": view}, clock=lambda: moment).read({"v": [["u1"]]}).tables["v"].to_pylist()
        return row

    assert at(START + HOUR) == {"n": 1, "s": 1.5, "known": True}
    assert at(START + HOUR + 1) == {"n": 2, "s": 3.0, "known": True}
    # Applied again later, with nothing new: what waited is settled, once.
    apply(connection, store, view, "FROM events WHERE false", START + 2 * HOUR)
    assert at(START + 3 * HOUR) == {"n": 2, "s": 3.0, "known": True}


def test_pieces_that_no_window_reaches_any_more_are_dropped(connection):
    fill(connection, events_at(*(START + day * DAY for day in range(30))))
    view = kept(FeatureView("v", ("user_id",), "events", (Feature("n", "count", window=Window("sawtooth", 2 * DAY)),)))
    store = Memory()
    apply(connection, store, view, "FROM events WHERE log_offset < 29", START + 28 * DAY + 1)
    apply(connection, store, view, "FROM events WHERE log_offset = 29", START + 29 * DAY + 1)
    (value,) = [value for key, value in store.items() if key != KEY]
    _, ((start, *_), _) = msgspec.msgpack.decode(value)[0]
    assert len(start) // 8 == 3


def test_expressions_see_the_moment_of_the_request(connection):
    fill(connection, events_at(START))
    features = (
        Feature("last", "max", "event_ts"),
        Feature("age", expression="(epoch_us(request.timestamp) - epoch_us(last)) / 6e7"),
        Feature("old", expression="age > 10"),
    )
    view = kept(FeatureView("v", ("user_id",), "events", features))
    store = Memory()
    apply(connection, store, view, "FROM events", START + 1)
    reader = FeatureReader(store, {"v": view}, wanted={"v": ["old"]}, clock=lambda: START + 11 * MINUTE)
    assert reader.read({"v": [["u1"], ["nobody"]]}).tables["v"].to_pylist() == [{"old": True}, {"old": None}]


def test_expressions_that_are_not_simple_are_computed_by_duckdb(connection):
    fill(connection, events_at(START))
    features = (
        Feature("last", "max", "event_ts"),
        Feature("n", "count"),
        Feature("more", expression="n + 1"),
        Feature("year", expression="strftime(last, '%Y') || '/' || more"),
    )
    view = kept(FeatureView("v", ("user_id",), "events", features))
    store = Memory()
    apply(connection, store, view, "FROM events", START + 1)
    reader = FeatureReader(store, {"v": view}, wanted={"v": ["year", "more"]}, clock=lambda: START + 2)
    (row, nobody) = reader.read({"v": [["u1"], ["nobody"]]}).tables["v"].to_pylist()
    assert (row, nobody) == ({"year": f"{from_microseconds(START).year}/2", "more": 2}, {"year": None, "more": 1})


def test_views_over_sessions_are_left_out_with_the_reason():
    sources = SOURCES | {"sessions": SOURCES["events"]}
    said = online_view(FeatureView("v", ("user_id",), "sessions", (Feature("n", "count"),)), sources)
    assert said == "it is computed from sessions, which change as late events come in"


def test_identities_as_the_lake_has_them_are_merges(connection):
    fill(connection, [], [{"anonymous_id": "a", "user_id": "u", "known_at": START}])
    rows = "SELECT 'identify' AS type, anonymous_id, user_id, NULL AS previous_id, known_at AS event_ts FROM identities"
    found = connection.execute(MERGED.format(known="event_ts", rows=rows)).fetchall()
    store = Memory(owners.changed(Memory().get_many, [(a, u, START) for a, u, _ in found]))
    assert owners.owned_at(store[owners.owner_key("u")], START) == ["a"]
    assert owners.owned_at(store[owners.owner_key("u")], START - 1) == []
