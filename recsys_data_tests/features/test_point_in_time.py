import datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recsys_data.features.aggregates import Tiles
from recsys_data.features.check import resolve
from recsys_data.features.functions import FUNCTIONS
from recsys_data.features.point_in_time import join
from recsys_data.features.tiles import tiles
from recsys_data.features.view import DAY, HOUR, MINUTE, Feature, FeatureView, Window
from recsys_data_tests.features import oracle
from recsys_data_tests.features.tables import RELATIONS, SOURCES, connect, fill, spine_of

START = 1_700_006_400_000_000  # midnight
WINDOWS = [
    Window("rolling", HOUR),
    Window("sawtooth", HOUR),
    Window("rolling", 7 * MINUTE + 1),
    Window("sawtooth", 2 * DAY),
    Window("lifetime"),
]
# The column of each function, as the oracle calls it too.
COLUMNS = {"count": None, "last_n": "type", "approx_count_distinct": "item_id", "sum": "quantity", "first": "value"}


def feature(function, window, delay=0, filtered=False):
    """Every function has a filter or a delay somewhere: refunds do not count where `filtered`."""
    return Feature(
        f"{function}_{window.kind}_{window.size}_{delay}_{filtered}".replace("-", "_"),
        function,
        COLUMNS.get(function, "value"),
        "type <> 'refund'" if filtered else None,
        window,
        delay,
        n=3 if function == "last_n" else None,
        half_life=HOUR if function == "decayed_sum" else None,
    )


def view_of(entity):
    features = [
        feature(function, window, delay=(0, 10 * MINUTE)[(a + b) % 3 == 0], filtered=(a + b) % 2 == 0)
        for a, function in enumerate(FUNCTIONS)
        for b, window in enumerate(WINDOWS)
    ]
    return FeatureView("v", entity, "events", tuple(features))


def expected(view, spine_row, events, merges, commit):
    """The features of one row of a spine, by the oracle."""
    user, item, moment = spine_row
    of = {"user_id": user, "item_id": item}
    if moment is None or any(of[key] is None for key in view.entity):
        mine, known = [], False
    else:
        mine = [r for r in events if owns(r, of, view, moment, merges)]
        # The flag does not forget: an anonymous id that moved on was known of before.
        known = any(
            max(r["ts"] + 1, r["known"] if commit else 0, since) <= at
            for r in events
            for at in [moment]
            for since in ownerships(r, of, view, merges, commit)
        )
    found = {}
    for one in view.features:
        rows = [
            r
            for r in mine
            if oracle.counts(r, moment, (one.window.kind, one.window.size), one.delay, commit)
            and (one.filter is None or r["type"] != "refund")
        ]
        found[one.name] = oracle.value(
            one.function, rows, moment, one.delay, one.column, n=one.n, half_life=one.half_life
        )
    return found, known


def owns(row, of, view, moment, merges):
    owner = oracle.owner_at(row, moment, merges) if "user_id" in view.entity else None
    return all((owner if key == "user_id" else row[key]) == of[key] for key in view.entity)


def ownerships(row, of, view, merges, commit):
    """Moments from which on the row belonged to the entity for a while, after it was known."""
    if "user_id" not in view.entity or row["user_id"] is not None:
        return [0] if owns(row, of, view, 0, []) else []
    starts = {m["known_at"] for m in merges} | {row["ts"] + 1} | ({row["known"]} if commit else set())
    counted = [at for at in starts if at > row["ts"] and (not commit or at >= row["known"])]
    return [at for at in counted if owns(row, of, view, at, merges)]


def close(ours, theirs):
    if isinstance(theirs, float) and ours is not None:
        return ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    return ours == theirs


MOMENTS = st.one_of(
    # Edges of hops and windows, and one microsecond beside them.
    st.builds(
        lambda hops, off: START + hops * 5 * MINUTE + off,
        st.integers(-3 * 288, 40),
        st.sampled_from([0, 0, -1, 1, MINUTE]),
    ),
    st.integers(START - 2 * HOUR, START + 2 * HOUR),
)


@st.composite
def worlds(draw):
    events = []
    for offset in range(draw(st.integers(0, 12))):
        ts = draw(MOMENTS)
        late = draw(st.sampled_from([0, 0, 1, 3_000_000, 5 * MINUTE, 3 * HOUR, 3 * DAY]))
        user = draw(st.sampled_from(["u1", "u1", "u2", None]))
        value = draw(st.one_of(st.none(), st.integers(-9999, 9999).map(lambda n: n / 100)))
        events.append(
            {
                "user_id": user,
                "anonymous_id": draw(st.sampled_from(["a1", "a2", None])),
                "item_id": draw(st.sampled_from(["i1", "i2", None])),
                "type": draw(st.sampled_from(["view", "purchase", "refund"])),
                "value": value,
                "quantity": draw(st.one_of(st.none(), st.integers(-5, 5))),
                "ts": ts,
                "known": ts + late,
                "partition": draw(st.integers(0, 1)),
                "offset": offset,
            }
        )
    merges = [
        {"anonymous_id": a, "user_id": u, "known_at": at}
        for a, u, at in draw(
            st.lists(
                st.tuples(st.sampled_from(["a1", "a2"]), st.sampled_from(["u1", "u2"]), MOMENTS),
                max_size=4,
            )
        )
    ]
    edges = [e["ts"] + shift for e in events for shift in (0, 1, HOUR, HOUR + 1, 10 * MINUTE, 2 * DAY)]
    edges += [e["known"] for e in events] + [m["known_at"] for m in merges]
    moments = st.one_of(MOMENTS, st.sampled_from(edges)) if edges else MOMENTS
    spine = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["u1", "u2", "u3", None]),
                st.sampled_from(["i1", "i2", None]),
                st.one_of(moments, moments, moments, st.none()),
            ),
            max_size=8,
        )
    )
    return events, merges, spine + spine[:1]


@pytest.fixture(scope="module")
def connection():
    with connect() as one:
        yield one


@pytest.mark.parametrize("entity", [("user_id",), ("item_id",), ("user_id", "item_id")], ids="/".join)
@settings(
    max_examples=12,
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
