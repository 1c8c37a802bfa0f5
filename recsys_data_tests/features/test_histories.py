import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.contracts.features.functions import OVER_STATES
from recsys_data.contracts.features.view import DAY, HOUR, Feature, FeatureView, Window
from recsys_data.features.point_in_time import join
from recsys_data_tests.features import oracle
from recsys_data_tests.features.tables import RELATIONS, SOURCES, connect, fill, spine_of
from recsys_data_tests.features.test_point_in_time import START, close

WINDOWS = (HOUR, 30 * DAY)
VIEW = FeatureView(
    "item",
    ("item_id",),
    "prices",
    (
        Feature("price", column="price"),
        *(
            Feature(f"{function}_{size}_{delay}", function, "price", window=Window("rolling", size), delay=delay)
            for function in OVER_STATES
            for size in WINDOWS
            for delay in (0, HOUR)
        ),
        Feature("ratio", expression=f"price / nullif(median_{30 * DAY}_0, 0)"),
    ),
)


@pytest.fixture(scope="module")
def connection():
    with connect() as one:
        yield one


def features(connection, states, moments, item="i1"):
    """The features of an item at moments, of states (from, to, price) of `i1`, all in microseconds since START."""
    prices = [
        {"item_id": "i1", "price": p, "valid_from": START + a, "valid_to": None if b is None else START + b}
        for a, b, p in states
    ]
    fill(connection, [], prices=prices)
    spine = spine_of(connection, [(None, item, START + moment) for moment in moments])
    joined = join(connection, spine, [VIEW], SOURCES, RELATIONS)
    return [dict(zip(joined.columns, row, strict=True)) for row in joined.fetchall()]


@st.composite
def histories(draw):
    """States one after the other, some with a gap between them, the last one perhaps open."""
    states, at = [], draw(st.integers(-40 * DAY, 0))
    for _ in range(draw(st.integers(0, 6))):
        begins = at + draw(st.sampled_from([0, 0, 1, 7 * HOUR]))
        at = begins + draw(st.one_of(st.sampled_from([1, HOUR, DAY]), st.integers(1, 20 * DAY)))
        states.append((begins, at, draw(st.one_of(st.none(), st.integers(0, 500).map(lambda n: n / 100)))))
    if states and draw(st.booleans()):
        states[-1] = (states[-1][0], None, states[-1][2])
    edges = [edge + shift for a, b, _ in states for edge in (a, b or a) for shift in (-1, 0, 1, HOUR, 2 * HOUR)]
    moments = st.one_of(st.integers(-50 * DAY, 90 * DAY), st.sampled_from(edges or [0]))
    return states, draw(st.lists(moments, min_size=1, max_size=6))


@settings(max_examples=25)
@given(world=histories())
def test_functions_over_a_history_equal_the_oracle(connection, world):
    states, moments = world
    for moment, found in zip(moments, features(connection, states, moments), strict=True):
        for one in VIEW.features:
            if one.function:
                wanted = oracle.over_states(one.function, states, moment, one.window.size, one.delay)
                assert close(found[f"item__{one.name}"], wanted), (one.name, moment)


def test_a_state_counts_as_long_as_it_held_within_the_window_and_until_the_moment(connection):
    # Ten days at 10, then 5 until the moment: for one day, and for twelve.
    states = [(0, 10 * DAY, 10.0), (10 * DAY, None, 5.0)]
    day, later, gone = features(connection, states, [11 * DAY, 22 * DAY, 0])
    assert (day[f"item__median_{30 * DAY}_0"], day["item__ratio"]) == (10.0, 0.5)
    assert (later[f"item__median_{30 * DAY}_0"], later["item__ratio"]) == (5.0, 1.0)
    assert later[f"item__avg_{30 * DAY}_0"] == pytest.approx(160 / 22)
    assert (gone["item__price"], gone[f"item__median_{30 * DAY}_0"], gone["item__known"]) == (10.0, None, True)


def test_when_a_state_ends_after_the_moment_changes_nothing(connection):
    open_ended = features(connection, [(0, 5 * DAY, 1.0), (5 * DAY, None, 3.0)], [7 * DAY])
    assert open_ended == features(connection, [(0, 5 * DAY, 1.0), (5 * DAY, 9 * DAY, 3.0)], [7 * DAY])


def test_an_item_without_states_has_no_values(connection):
    (found,) = features(connection, [(0, None, 1.0)], [DAY], item="i2")
    assert all(value is None for name, value in found.items() if name.startswith("item__") and name != "item__known")
    assert found["item__known"] is False
