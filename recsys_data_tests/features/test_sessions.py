from dataclasses import replace

import pytest

from recsys_data.contracts.features.sources import SESSION_COLUMNS
from recsys_data.contracts.features.view import DAY, HOUR, MINUTE, Feature, FeatureView, Window
from recsys_data.features.point_in_time import join
from recsys_data.features.sessions import sessions
from recsys_data_tests.features.tables import EVENTS, connect, fill, spine_of
from recsys_data_tests.features.test_point_in_time import START, event

SESSIONS = replace(EVENTS, columns={**EVENTS.columns, **SESSION_COLUMNS})
QUERY = "SELECT *, type AS query FROM events"
ROLLING = Window("rolling", 30 * MINUTE)
VIEW = FeatureView(
    "session",
    ("user_id",),
    "sessions",
    tuple(Feature(name, "last", f"visit_{name}", window=ROLLING) for name in ("id", "depth", "seconds", "query")),
)


@pytest.fixture(scope="module")
def connection():
    with connect() as one:
        yield one


def at(connection, *moments):
    query = sessions(EVENTS, QUERY)
    spine = spine_of(connection, [("u1", None, START + t) for t in moments])
    joined = join(connection, spine, [VIEW], {"sessions": SESSIONS}, {"sessions": query})
    return [row[-5:-1] for row in joined.fetchall()]


def test_a_session_ends_after_half_an_hour_without_an_event(connection):
    fill(connection, [event(t * MINUTE, kind=f"q{t}", offset=t) for t in (0, 29, 59, 60)])
    first, second, over, third = at(connection, 1, 29 * MINUTE + 1, 59 * MINUTE + 1, 61 * MINUTE)
    assert first[1:] == (1, 0.0, "q0")
    assert second == (first[0], 2, 29 * 60.0, "q29")
    assert over[1:] == (1, 0.0, "q59")
    assert third == (over[0], 2, 60.0, "q60")
    assert first[0] != over[0]
    assert at(connection, 60 * MINUTE + 1 + 30 * MINUTE) == [(None, None, None, None)]


def test_what_a_late_event_changes_is_known_with_it(connection):
    fill(connection, [event(0), event(MINUTE, known=HOUR), event(2 * MINUTE, kind="q2", offset=2)])
    (early,) = at(connection, 3 * MINUTE)
    assert early[1:] == (1, 0.0, "view")


def test_ids_of_users_and_devices_that_look_the_same_have_sessions_of_their_own(connection):
    fill(connection, [event(0), event(1, user=None, anonymous="u1", offset=1), event(2, offset=2)])
    assert at(connection, 3)[0][1] == 2


def test_a_session_of_days_is_seen_from_the_beginning_of_the_day_before_on(connection):
    every = 20 * MINUTE
    fill(connection, [event(n * every, offset=n) for n in range(3 * DAY // every + 1)])
    rows = connection.sql(f"SELECT event_ts, visit_depth FROM ({sessions(EVENTS, QUERY)}) ORDER BY ALL").fetchall()
    assert len(rows) == 3 * DAY // every + 1
    assert rows[-1][1] == DAY // every + 1
    only = f"{QUERY} WHERE event_ts >= make_timestamptz({START + 2 * DAY}::BIGINT)"
    assert connection.sql(f"SELECT max(visit_depth) FROM ({sessions(EVENTS, only)})").fetchall() == [(73,)]


def test_the_item_before_is_the_last_other_one_that_the_visitor_acted_on(connection):
    shown = [("a", "view"), ("b", "impression"), ("b", "click"), ("b", "view"), (None, "search"), ("c", "view")]
    fill(connection, [event(n, item=item, kind=kind, offset=n) for n, (item, kind) in enumerate(shown)])
    rows = connection.sql(
        f"SELECT item_id, type, previous_item_id FROM ({sessions(EVENTS, QUERY)}) ORDER BY log_offset"
    ).fetchall()
    assert [row[2] for row in rows] == [None, "a", "a", None, "b", "b"]
