"""Fields without a column: nothing that a client sent is thrown away, and ordinary clients stay on the fast ways."""

import json
from typing import Any

from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data_tests.support.decoding import ACCEPTED, VIEW, Decoding

IDENTIFY = {"type": "identify", "item_id": None}


def properties(decoding: Decoding, *cases: dict[str, Any]) -> list[Any]:
    outcomes = decoding.views(cases)
    assert {outcome.reason for outcome in outcomes} == {ACCEPTED}
    return [outcome.columns["properties"] and json.loads(outcome.columns["properties"]) for outcome in outcomes]


def test_fields_without_a_column_are_kept_where_they_stood(decoding: Decoding) -> None:
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, None),
        ({"properties": {}}, {}),
        ({"properties": {"a": None}}, {"a": None}),
        ({"foo": 1}, {"foo": 1}),
        ({"foo": {"bar": [1, {"baz": None}], "context": {}}}, {"foo": {"bar": [1, {"baz": None}], "context": {}}}),
        ({"foo": 1, "properties": {}}, {"foo": 1}),
        ({"foo": 1, "properties": {"bar": None}}, {"foo": 1, "bar": None}),
        ({"context": {"foo": 1, "page": "p"}}, {"context": {"foo": 1}}),
        ({"context": {"device": {"foo": "x"}}, "foo": []}, {"context": {"device": {"foo": "x"}}, "foo": []}),
        (
            {"context": {"library": {"name": "n"}}, "properties": {"a": 1}},
            {"context": {"library": {"name": "n"}}, "a": 1},
        ),
        ({"größe": "ß", "": "empty", "a\x00b": 1, "it's": '"'}, {"größe": "ß", "": "empty", "a\x00b": 1, "it's": '"'}),
        ({"device": {"type": "t"}}, {"device": {"type": "t"}}),
    ]
    assert properties(decoding, *(members for members, _ in cases)) == [kept for _, kept in cases]


def test_fields_of_one_name_outside_and_inside_properties_are_both_kept(decoding: Decoding) -> None:
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"foo": 1, "properties": {"foo": 2}}, {"foo": 2, "$event": {"foo": 1}}),
        ({"foo": 1, "bar": 3, "properties": {"foo": None}}, {"foo": None, "bar": 3, "$event": {"foo": 1}}),
        ({"foo": 1, "properties": {"foo": 2, "$event": 3}}, {"foo": 2, "$event": 3, "$$event": {"foo": 1}}),
        ({"context": {"a": 1}, "properties": {"context": 2}}, {"context": 2, "$event": {"context": {"a": 1}}}),
    ]
    assert properties(decoding, *(members for members, _ in cases)) == [kept for _, kept in cases]


def test_values_whose_columns_are_those_of_other_datasets_are_kept(decoding: Decoding) -> None:
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"group_id": "g", "traits": {"a": 1}}, {"group_id": "g", "traits": {"a": 1}}),
        ({**IDENTIFY, "query": 'q"', "quantity": 3}, {"query": 'q"', "quantity": 3}),
        ({**IDENTIFY, "traits": {"a": 1}, "session_id": "s", "context": {"page": "p"}}, None),
        ({**IDENTIFY, "value": 1.5, "properties": {"a": None}}, {"a": None, "value": 1.5}),
        ({**IDENTIFY, "value": 1.5, "properties": {"value": 2}}, {"value": 2, "$event": {"value": 1.5}}),
        ({**IDENTIFY, "value": 1.5, "foo": 2}, {"foo": 2, "value": 1.5}),
        (
            {**IDENTIFY, "value": 1, "properties": {"$event": 0, "value": 2}},
            {"$event": 0, "value": 2, "$$event": {"value": 1}},
        ),
    ]
    assert properties(decoding, *(members for members, _ in cases)) == [kept for _, kept in cases]


STYLES = [(",", ":"), (", ", ": "), (",", ": ")]


def test_ordinary_clients_are_decoded_vectorised(decoding: Decoding) -> None:
    event = VIEW | {
        "value": 12.5,
        "quantity": 3,
        "price": None,
        "query": 'Größe: "L", 5" {x} [y] it\'s',
        "sent_at": "2026-01-02T03:04:05+01:00",
        "properties": {"list": [1, 2.5, "a", None, True], "nested": {"none": None, "empty": {}}, "url": "http://a/b"},
        "context": {
            "page": "p",
            "device": {"type": "mobile"},
            "ip": "1.2.3.4",
            "library": {"name": "x", "version": "1"},
        },
        "foo": "bar",
        "bar": None,
    }
    lines = [json.dumps(event, separators=STYLES[n % 3], ensure_ascii=bool(n % 2)).encode() for n in range(60)]
    # The first lines of a kind may be read one by one, the next are not.
    for _ in range(2):
        assert {outcome.reason for outcome in decoding.outcomes(lines)} == {ACCEPTED}
    assert decoding.decode_strictly == 0


def test_rejected_events_that_can_be_read_are_explained_vectorised(decoding: Decoding) -> None:
    lines = [json.dumps(VIEW | {"type": "rating", "rating": 11}).encode()] * 60
    for _ in range(2):
        assert {outcome.reason for outcome in decoding.outcomes(lines)} == {"rating_out_of_range"}
    assert decoding.decode_strictly == 0


def test_what_begins_to_occur_is_soon_read_vectorised_again() -> None:
    decoding = Decoding(limits=ConsumerLimits(statement_lines=1))
    plain = [json.dumps(VIEW).encode()] * 50
    rich = [json.dumps(VIEW | {"query": "q", "position": 2, "context": {"app": {"name": "a"}}}).encode()] * 50
    for lines in (plain, rich, rich):
        assert {outcome.reason for outcome in decoding.outcomes(lines)} == {ACCEPTED}
    assert decoding.decode_strictly == 0


def test_a_few_lines_are_read_one_by_one_with_the_same_result(any_decoding: Decoding) -> None:
    assert any_decoding.outcome(VIEW | {"foo": 1}).columns["properties"] == '{"foo":1}'
    assert any_decoding.decode_strictly == 1
