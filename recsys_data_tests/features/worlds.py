"""Small worlds of events and merges, a view with every function over every window, and what its features should be."""

import pytest
from hypothesis import strategies as st

from recsys_data.contracts.features.functions import FUNCTIONS
from recsys_data.contracts.features.view import DAY, HOUR, MINUTE, Feature, FeatureView, Window
from recsys_data_tests.features import oracle

START = 1_700_006_400_000_000  # midnight
WINDOWS = [
    Window("rolling", HOUR),
    Window("sawtooth", HOUR),
    Window("rolling", 7 * MINUTE + 1),
    Window("sawtooth", 2 * DAY),
    Window("lifetime"),
]
UUID = "('00000000-0000-0000-0000-00000000000' || log_offset)::UUID"
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
