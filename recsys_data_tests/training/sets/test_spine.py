"""The rows of training sets against a plain reading of the rules, event by event."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.days import to_microseconds
from recsys_data.features.lake import open_features
from recsys_data.features.stored import StoredThen
from recsys_data.training.sets.declared import Label, Negatives, Split, TrainingSet
from recsys_data.training.sets.spine import Spine
from recsys_data.training.sets.split import divide

START = datetime(2026, 1, 10, tzinfo=UTC)
HOUR = 3_600_000_000
FIELDS = {
    "event_id": pa.string(), "type": pa.string(), "user_id": pa.string(), "anonymous_id": pa.string(),
    "item_id": pa.string(), "session_id": pa.string(), "list_id": pa.string(), "recommendation_id": pa.string(),
    "order_id": pa.string(), "position": pa.int64(), "rating": pa.float64(), "event_ts": pa.timestamp("us", "UTC"),
    "ingested_at": pa.timestamp("us", "UTC"), "log_partition": pa.int64(), "log_offset": pa.int64(),
}  # fmt: skip
LABELS = [Label("click", 1), Label("purchase", 5, "negate")]


@dataclass
class Interactions:
    """Stands in for what a lake held: `rows` gives SQL, as `StoredThen` does."""

    stored: dict = field(default_factory=dict)

    def rows(self, dataset):
        return "SELECT * FROM happened"


def events(*given):
    """Events, each of hours since START, type, user, item and further fields, in the order of the log."""
    rows = []
    for number, (hours, kind, user, item, *more) in enumerate(given):
        at = START + timedelta(hours=hours)
        row = dict.fromkeys(FIELDS) | {"event_id": f"e{number}", "type": kind, "user_id": user, "item_id": item}
        row |= {
            "event_ts": at,
            "ingested_at": at,
            "log_partition": 0,
            "log_offset": number,
            **(more[0] if more else {}),
        }
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema(FIELDS.items()))


def declared(**given):
    options = {"name": "test", "rows": "impressions", "labels": LABELS, "window": "2h", "maturity": "4h", **given}
    return TrainingSet(**options)


def make(table, one=None, end=100.0, previous=False, known_until=None):
    """(rows by event id and sampled number, counts)"""
    one = one or declared()
    cutoff = to_microseconds(START) + int(end * HOUR)
    with open_features() as connection, TemporaryDirectory() as folder:
        connection.register("happened", table)
        spine = Spine(connection, one, cast(StoredThen, Interactions()), FIELDS, cutoff, known_until)
        counts = spine.make(Path(folder, "rows"), previous)
        split, _ = divide(connection, one, cutoff)
        found = connection.sql(f'SELECT r.*, {split} AS split FROM "#rows" r').to_arrow_table().to_pylist()
    return {(row["event_id"], row["#k"]): row for row in found}, counts


def labels(rows):
    return {event: row["#label"] for (event, k), row in rows.items() if not k}


def test_the_recommendation_leads_to_the_impression_before_list_and_session_do():
    rows, counts = make(
        events(
            (1, "impression", "u", "a", {"recommendation_id": "r", "list_id": "l1", "session_id": "s"}),
            (1.1, "impression", "u", "a", {"list_id": "l2", "session_id": "s"}),
            (1.2, "impression", "u", "a", {"session_id": "s"}),
            (1.3, "click", "u", "a", {"recommendation_id": "r", "list_id": "l2", "session_id": "s"}),
            (1.4, "click", "u", "a", {"list_id": "l2", "session_id": "s"}),
            (1.5, "purchase", "u", "a", {"session_id": "s"}),
            (1.6, "purchase", "u", "b", {"session_id": "s"}),
        )
    )
    assert labels(rows) == {"e0": 1, "e1": 1, "e2": 5, "e6": 5}
    assert [counts[f"outcomes_by_{link}"] for link in ("recommendation_id", "list_id", "session_id")] == [1, 1, 1]
    assert counts["outcomes_without_impression"] == 1
    assert rows["e6", 0]["position"] is None


def test_a_list_that_is_shown_to_many_is_a_query_for_each_session():
    rows, _ = make(
        events(
            (1, "impression", "u", "a", {"list_id": "category/1", "session_id": "s1"}),
            (1.1, "impression", "v", "a", {"list_id": "category/1", "session_id": "s2"}),
            (1.2, "click", "u", "a", {"list_id": "category/1", "session_id": "s1"}),
        )
    )
    assert labels(rows) == {"e0": 1, "e1": 0}
    assert [row["query_id"] for row in rows.values()] == ["category/1 s1", "category/1 s2"]


def test_an_outcome_belongs_to_the_last_impression_before_it_within_the_window():
    shown = {"session_id": "s"}
    rows, _ = make(
        events(
            (1, "impression", "u", "a", shown),
            (2, "impression", "u", "a", shown),
            (2.5, "click", "u", "a", shown),
            (5, "click", "u", "a", shown),
            (6, "impression", "u", "a", shown),
        )
    )
    assert labels(rows) == {"e0": 0, "e1": 1, "e3": 1, "e4": 0}


def test_what_was_given_back_in_time_is_no_outcome():
    rows, counts = make(
        events(
            (1, "purchase", "u", "a", {"order_id": "o1"}),
            (2, "purchase", "u", "b", {"order_id": "o1"}),
            (3, "purchase", "u", "c"),
            (4, "refund", "u", "a", {"order_id": "o1"}),
            (6.5, "refund", "u", "b", {"order_id": "o1"}),
            (6.5, "refund", "v", "c"),
        ),
        declared(rows="outcomes"),
    )
    assert labels(rows) == {"e1": 5, "e2": 5}
    assert counts["outcomes_refunded"] == 1


def test_rows_whose_label_may_still_change_are_left_out_and_counted():
    rows, counts = make(
        events((1, "impression", "u", "a"), (7, "impression", "u", "a"), (7, "purchase", "u", "b")), end=10
    )
    assert list(labels(rows)) == ["e0"]
    assert (counts["impressions_immature"], counts["outcomes_immature"]) == (1, 1)


def test_days_of_bots_are_left_out_and_counted():
    many = [(n / 100, "click", "robot", "a") for n in range(30)]
    rows, counts = make(
        events(*many, (1, "click", "u", "a"), (30, "click", "robot", "a")),
        declared(rows="outcomes", bots="clicks > 20"),
    )
    assert {row["visitor_id"] for row in rows.values()} == {"u", "robot"}
    assert (counts["outcomes_of_bots"], counts["visitor_days_of_bots"], len(rows)) == (30, 1, 2)


def test_only_impressions_of_lists_with_an_outcome_are_negatives_where_declared():
    table = events(
        (1, "impression", "u", "a", {"list_id": "l1", "position": 1}),
        (1, "impression", "u", "b", {"list_id": "l1", "position": 2}),
        (1.1, "click", "u", "b", {"list_id": "l1"}),
        (2, "impression", "u", "a", {"list_id": "l2"}),
    )
    rows, counts = make(table, declared(negatives=Negatives(lists="followed")))
    assert labels(rows) == {"e0": 0, "e1": 1}
    assert [rows[event, 0]["position"] for event in ("e0", "e1")] == [1, 2]
    assert counts["impressions_not_followed_left_out"] == 1
    assert len(make(table)[0]) == 3


def test_a_share_of_negatives_is_drawn_by_id_and_not_by_order():
    shown = [(n / 50, "impression", f"u{n}", "a", {"event_id": f"x{n}"}) for n in range(400)]
    share = declared(negatives=Negatives(impressions=0.25))
    one, _ = make(events(*shown), share)
    other, _ = make(events(*reversed(shown)), share)
    assert one.keys() == other.keys()
    assert 60 < len(one) < 140


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_sampled_negatives_are_items_that_the_visitor_had_no_outcome_on(by):
    clicked = [(n / 10, "click", f"u{n % 5}", f"i{n % 7}") for n in range(20)]
    rows, counts = make(events(*clicked), declared(rows="outcomes", negatives=Negatives(sampled=4, by=by)))
    had = {(user, item) for _, _, user, item in clicked}
    sampled = [row for (_, k), row in rows.items() if k]
    assert sampled and counts["sampled"] == len(sampled)
    for row in sampled:
        assert (row["visitor_id"], row["item_id"]) not in had
        assert (row["#label"], row["#negative"]) == (0, "sampled")


def test_the_item_before_is_the_last_that_the_visitor_acted_on_in_the_session():
    rows, _ = make(
        events(
            (1, "click", "u", "a"),
            (1.1, "impression", "u", "c"),
            (1.2, "click", "u", "b"),
            (1.3, "click", "u", "b"),
            (5, "click", "u", "c"),
        ),
        declared(rows="outcomes"),
        previous=True,
    )
    assert {event: row["previous_item_id"] for (event, _), row in rows.items()} == {
        "e0": None,
        "e2": "a",
        "e3": None,
        "e4": None,
    }


def test_a_weight_may_be_sql_over_the_event():
    rated = declared(rows="outcomes", labels=[Label("rating", "rating - 2")])
    rows, _ = make(events((1, "rating", "u", "a", {"rating": 5.0}), (2, "rating", "u", "b", {"rating": 2.0})), rated)
    assert labels(rows) == {"e0": 3}


def test_what_became_known_after_the_cutoff_is_left_out():
    table = events((1, "click", "u", "a"), (2, "click", "u", "b", {"ingested_at": START + timedelta(hours=50)}))
    until = to_microseconds(START) + 20 * HOUR
    assert list(labels(make(table, declared(rows="outcomes"), 20, known_until=until)[0])) == ["e0"]
    assert len(make(table, declared(rows="outcomes"), 20)[0]) == 2


def split_of(one, *given, end=100.0):
    rows, _ = make(events(*given), one, end)
    return [row["split"] for _, row in sorted(rows.items(), key=lambda one: int(one[0][0][1:]))]


def test_a_split_by_time_leaves_out_rows_in_the_gap_before_each_border():
    clicked = [(n, "click", f"u{n % 3}", "a") for n in range(0, 20, 2)]
    by_share = declared(rows="outcomes", split=Split(test=0.2, validation=0.2, gap="1h"))
    assert split_of(by_share, *clicked) == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    wide = declared(rows="outcomes", split=Split(test=0.2, validation=0.2, gap="3h"))
    assert split_of(wide, *clicked) == ["train"] * 5 + [None, "validation", None, "test", "test"]
    lasting = declared(rows="outcomes", maturity="0s", split=Split(test="5h", validation="4h"))
    assert split_of(lasting, *clicked, end=20) == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2


def test_leave_last_out_tests_with_the_last_outcome_of_each_visitor():
    one = declared(rows="outcomes", split=Split("leave_last_out", validation=0.1))
    clicked = [(1, "click", "u", "a"), (2, "click", "v", "a"), (3, "click", "u", "b"), (4, "click", "u", "c")]
    assert split_of(one, *clicked) == ["train", "train", "validation", "test"]
    none = declared(rows="outcomes", split=Split("leave_last_out", validation=0.0))
    assert split_of(none, *clicked, (5, "click", "v", "c")) == ["train", "train", "train", "test", "test"]


def test_a_split_by_visitor_keeps_each_visitor_on_one_side():
    clicked = [(n / 10, "click", f"u{n % 40}", "a") for n in range(200)]
    rows, _ = make(events(*clicked), declared(rows="outcomes", split=Split("visitor", validation=0.2, test=0.3)))
    sides = {}
    for row in rows.values():
        sides.setdefault(row["visitor_id"], set()).add(row["split"])
    assert all(len(one) == 1 for one in sides.values())
    assert {side for one in sides.values() for side in one} == {"train", "validation", "test"}


MOMENTS = st.integers(0, 120).map(lambda n: n / 10)
IDS = st.sampled_from([None, "1", "2"])
EVENT = st.tuples(
    MOMENTS,
    st.sampled_from(["impression", "impression", "click", "purchase", "refund"]),
    st.sampled_from(["u", "v"]),
    st.sampled_from(["a", "b"]),
    st.fixed_dictionaries({"recommendation_id": IDS, "list_id": IDS, "session_id": IDS, "order_id": IDS}),
)


def expected(table, end, window=2 * HOUR, maturity=4 * HOUR):
    """Labels by event id, as the rules say, one event after the other."""
    rows = [
        row | {"ts": to_microseconds(row["event_ts"]), "visit": row["session_id"] or row["user_id"]}
        for row in table.to_pylist()
    ]
    refunds = [row for row in rows if row["type"] == "refund"]

    def refunded(row):
        return row["type"] == "purchase" and any(
            one["item_id"] == row["item_id"]
            and row["ts"] <= one["ts"] < row["ts"] + maturity
            and (
                (one["order_id"] is not None and one["order_id"] == row["order_id"])
                or (one["user_id"] == row["user_id"] and None in (one["order_id"], row["order_id"]))
            )
            for one in refunds
        )

    shown = [row for row in rows if row["type"] == "impression"]
    found = {row["event_id"]: 0 for row in shown}
    for row in rows:
        if row["type"] not in ("click", "purchase") or refunded(row):
            continue
        weight = 5 if row["type"] == "purchase" else 1
        for link in (("recommendation_id",), ("list_id", "visit"), ("visit",)):
            before = [
                one for one in shown if row[link[0]] and all(one[key] == row[key] for key in (*link, "item_id"))
                and one["ts"] <= row["ts"]
            ]  # fmt: skip
            if not before:
                continue
            newest = max(one["ts"] for one in before)
            if row["ts"] < newest + window:
                to = min((one for one in before if one["ts"] == newest), key=lambda one: one["log_offset"])
                found[to["event_id"]] = max(found[to["event_id"]], weight)
                break
        else:
            found[row["event_id"]] = weight
    moments = {row["event_id"]: row["ts"] for row in rows}
    return {event: label for event, label in found.items() if moments[event] + maturity <= end}


@given(st.lists(EVENT, min_size=1, max_size=25))
def test_rows_and_labels_are_those_of_the_rules_and_all_counts_add_up(given):
    table = events(*given)
    rows, counts = make(table, end=14)
    assert labels(rows) == expected(table, to_microseconds(START) + 14 * HOUR)
    assert counts["impressions"] == sum(
        counts[name]
        for name in (
            "impressions_of_bots",
            "impressions_immature",
            "impressions_followed",
            "impressions_not_followed",
            "impressions_not_followed_left_out",
        )
    )
    assert counts["outcomes"] == sum(
        counts[name]
        for name in (
            "outcomes_of_bots",
            "outcomes_refunded",
            "outcomes_by_recommendation_id",
            "outcomes_by_list_id",
            "outcomes_by_session_id",
            "outcomes_immature",
            "outcomes_without_impression",
        )
    )
    kept = ("impressions_followed", "impressions_not_followed", "outcomes_without_impression")
    assert counts["rows"] == len(rows) == sum(counts[name] for name in kept)
