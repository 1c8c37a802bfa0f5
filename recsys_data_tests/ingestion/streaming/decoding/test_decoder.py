"""Every line has one outcome, the same by every way of decoding, and the right one."""

import json
import random
from datetime import UTC, datetime, time
from typing import Any

import pytest

from recsys_data_tests.support import oracle
from recsys_data_tests.support.decoding import ACCEPTED, FIRST_DAY, MAX_EVENT_BYTES, NOW, VIEW, Decoding
from recsys_data_tests.support.event_lines import Lines


def right(line: bytes) -> set[str]:
    return oracle.validate(line, datetime.combine(FIRST_DAY, time(), UTC), NOW, MAX_EVENT_BYTES)


def mutated(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """Each line with a few bytes flipped, inserted or deleted; none becomes two lines."""
    spare = b'\x00\t\r "\\{}[],:0123456789-+.eEntfalsu\xc3\xa9\xff\xed\xa0\x80'
    for number, line in enumerate(lines):
        data = bytearray(line)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(data) + 1)
            if rng.random() < 0.3:
                del data[place : place + rng.randrange(1, 4)]
            elif rng.random() < 0.5:
                data[place:place] = rng.choice(spare).to_bytes()
            elif place < len(data):
                data[place] = rng.choice(spare)
        lines[number] = bytes(data).replace(b"\n", b" ")
    return lines


@pytest.mark.parametrize(("seed", "harm"), [(1, 0.0), (2, 0.01), (3, 0.05)])
def test_lines_have_the_fate_that_is_right_whichever_way_decodes_them(
    decoding: Decoding, seed: int, harm: float
) -> None:
    lines = Lines(seed, harm).take(1500)
    outcomes = decoding.outcomes(lines)
    assert decoding.decode_strictly < len(lines) * (0.6 if harm < 0.02 else 0.9), "hardly a line was decoded vectorised"
    for line, outcome, exact in zip(lines, outcomes, decoding.exact_fates(lines), strict=True):
        assert outcome.comparable() == exact.comparable(), line
        assert outcome.reason in right(line), line


def test_lines_with_changed_bytes_have_the_fate_that_is_right_whichever_way_decodes_them(decoding: Decoding) -> None:
    lines = mutated(Lines(11, 0.0).take(1500), random.Random(11))
    for line, outcome, exact in zip(lines, decoding.outcomes(lines), decoding.exact_fates(lines), strict=True):
        assert outcome.comparable() == exact.comparable(), line
        assert outcome.reason in right(line), line


def test_values_of_accepted_events_are_those_that_were_sent(decoding: Decoding) -> None:
    lines = Lines(21, 0.0).take(1000)
    for line, outcome in zip(lines, decoding.outcomes(lines), strict=True):
        if outcome.reason == ACCEPTED:
            sent = json.loads(line)
            for name in ("event_id", "type", "user_id", "item_id", "query", "quantity", "order_id"):
                assert outcome.columns[name] == sent.get(name), (name, line)
            assert outcome.columns["value"] == (None if sent.get("value") is None else float(sent["value"])), line
            assert outcome.columns["event_ts"] == oracle.moment(sent["event_ts"]), line
            device = (sent.get("context") or {}).get("device") or {}
            assert outcome.columns["device_model"] == device.get("model"), line


def test_lines_without_newlines_and_with_invalid_neighbours_keep_their_fates(decoding: Decoding) -> None:
    good = json.dumps(VIEW).encode()
    broken = [b"", b"\xc3", b"\xa9" + good, b'{"event_id":', b":" + good, b'"user_id":"u"}', good + b"\xff"]
    lines = [line for other in broken for line in (good, other)]
    outcomes = decoding.outcomes(lines, newline=b"")
    assert [outcome.reason for outcome in outcomes] == [f.reason for f in decoding.outcomes(lines, newline=b"\n")]
    assert [outcome.reason == ACCEPTED for outcome in outcomes] == [True, False] * len(broken)


def outcomes(decoding: Decoding, cases: dict[str, bytes]) -> dict[str, str]:
    """The reason for each case, by the vectorised ways where they take it, and the same by the exact way."""
    by_choice, exactly = decoding.outcomes(list(cases.values())), decoding.exact_fates(list(cases.values()))
    assert [outcome.comparable() for outcome in by_choice] == [outcome.comparable() for outcome in exactly]
    return {name: outcome.reason for name, outcome in zip(cases, by_choice, strict=True)}


def with_text(text: str) -> bytes:
    """A good event with further members, written as they stand."""
    return (json.dumps(VIEW)[:-1] + f",{text}}}").encode()


def test_wrong_types_that_even_out_are_seen(decoding: Decoding) -> None:
    cases: list[dict[str, Any]] = [
        {"user_id": 5, "quantity": "7"},
        {"user_id": True, "context": {"consent": {"location": "true"}}},
        {"rating": True, "context": {"consent": {"location": 1}}},
        {"query": {}, "context": {"device": "x"}},
        {"query": {"a": 1}, "context": "x", "value": 1},
        {"query": [], "properties": []},
        {"query": 1, "value": "1", "price": "2", "tag": 2},
    ]
    lines = {str(members): json.dumps(VIEW | members).encode() for members in cases}
    assert outcomes(decoding, lines) == dict.fromkeys(lines, "wrong_type")


def test_a_key_that_stands_twice_is_refused_at_the_levels_of_columns(decoding: Decoding) -> None:
    expected = {
        '"foo":1,"foo":2': "duplicate_key",
        '"foo":1,"bar":{"foo":2}': ACCEPTED,
        '"context":{"page":"x","foo":1,"foo":2}': "duplicate_key",
        '"context":{"device":{"foo":1,"foo":{}}}': "duplicate_key",
        '"context":{"page":"x"},"context":{"ip":"1.2.3.4"}': "duplicate_key",
        '"item_id":"i2"': "duplicate_key",
        '"\\u0069tem_id":"i2"': "duplicate_key",
        '"ITEM_ID":"i2"': ACCEPTED,
        '"":1,"":2': "duplicate_key",
        '"query":null,"query":"q"': ACCEPTED,
        '"query":"q","query":null': ACCEPTED,
    }
    assert outcomes(decoding, {text: with_text(text) for text in expected}) == expected


@pytest.mark.parametrize("filling", [0, 1200])
def test_a_key_that_stands_twice_in_what_is_kept_as_text_is_refused_whichever_way_reads_it(
    decoding: Decoding, filling: int
) -> None:
    twice = ['{"a":1,"a":2}', '{"a":{"b":1,"c":2,"b":null}}', '[{"a":1},{"b":1,"b":1}]', '{"a":1,"\\u0061":2}']
    twice += [
        '{"x":"a:b","a":1,"a" : 2}',
        '{"":1,"":2}',
        '{"é":1,"é":{}}',
        '{"\\"":1,"\\"":2}',
        '{"a":{"a":{"b":1,"b":2}}}',
    ]
    once = ['{"a":{"a":1}}', '[{"a":1},{"a":2}]', '{"ab":1,"ba":2}', '{"x":":a\\":","a":":a"}', '{"a":"a","b":"a"}']
    places = ('"properties":{"x":%s}', '"traits":{"x":%s}', '"foo":%s', '"context":{"foo":%s}', '"properties":%s')
    lines, expected = {}, {}
    for value in (*twice, *once):
        for place in places:
            if place == '"properties":%s' and value.startswith("["):
                continue
            lines[place % value] = with_text(place % value)
            expected[place % value] = "duplicate_key" if value in twice else ACCEPTED
    # Many good lines make the vectorised ways worth it.
    fill = {f"f{n}": with_text(f'"properties":{{"n":{n}}}') for n in range(filling)}
    found = outcomes(decoding, lines | fill)
    assert {text: found[text] for text in lines} == expected


def test_what_is_no_strict_json_is_refused_wherever_it_stands(decoding: Decoding) -> None:
    wrong = [
        *("[nan]", "[ nan]", "[  nan]", "[\tnan]", "[1,nan]", "[1, nan]", "[1,\tNaN]", "[1,  -inf]", "[-Infinity]"),
        *("[[nan]]", '[{"a":nan}]', "[1,]", "[1, ]", "[1,  ]", "[1,\t]", "[,1]", "[1 2]", "[01]", "[1.]", "[.5]"),
        *("[+1]", "['x']", "[/**/1]", "[0x1]", "[tru]", '["\t"]', '["\\x"]', '["\\ud800"]', '["\\udc00\\ud800"]'),
        *('["\\u12"]', '{"a":1,}', "{a:1}", '{"a":NaN}', '{"a": -Infinity}', '{"a":nul}', '{"a"}', '{"a":}'),
        *('{"a":1 "b":2}', '{"a":1;"b":2}', '{"a"=1}', "[1}", "{]"),
    ]
    places = ('"properties":{"x":%s}', '"traits":{"x":%s}', '"foo":%s', '"context":{"foo":%s}')
    lines = {place % value: with_text(place % value) for value in wrong for place in places}
    assert outcomes(decoding, lines) == dict.fromkeys(lines, "malformed_json")


def test_lines_nested_without_measure_are_refused_and_others_kept(decoding: Decoding) -> None:
    def nested(opening: str, depth: int) -> bytes:
        closing = "".join({"{": "}", "[": "]"}[mark] for mark in reversed(opening) if mark in "{[")
        times = depth // len(closing)
        return with_text(f'"properties":{{"x":{opening * times}1{closing * times}}}')

    lines, expected = {}, {}
    for opening in ('{"a":', "[", '[{"a":', "[ [", '[1,{"b":'):
        for depth, reason in ((96, ACCEPTED), (104, "malformed_json"), (400, "malformed_json")):
            lines[f"{opening} {depth}"], expected[f"{opening} {depth}"] = nested(opening, depth), reason
    assert outcomes(decoding, lines) == expected
    assert decoding.outcome(nested("[", 1800)).reason == "malformed_json"


def test_integers_are_stored_exactly_or_refused(decoding: Decoding) -> None:
    stored: dict[str, int | None] = {
        "7": 7,
        "-0": 0,
        "7.0": 7,
        "1e2": 100,
        "9007199254740993": 9007199254740993,
        "-9223372036854775808": -(2**63),
        "9223372036854775807": 2**63 - 1,
        **dict.fromkeys(("9223372036854775808", "2.5", "1e300", "1e400", "1" * 400, '"7"', "true", "[]")),
    }
    lines = [with_text(f'"quantity":{text}') for text in stored]
    for outcomes in (decoding.outcomes(lines), decoding.exact_fates(lines)):
        assert {text: outcome.columns.get("quantity") for text, outcome in zip(stored, outcomes, strict=True)} == stored
        reasons = [ACCEPTED if value is not None else "wrong_type" for value in stored.values()]
        assert [outcome.reason for outcome in outcomes] == reasons


def test_numbers_beyond_a_double_are_kept_where_no_column_takes_them(decoding: Decoding) -> None:
    texts = ["1e400", "-1e999", "1" * 400, "123456789012345678901234567890", "1" * 1500]
    lines = [with_text(f'"properties":{{"x":{text}}},"y": [ {text}]') for text in texts]
    for outcomes in (decoding.outcomes(lines), decoding.exact_fates(lines)):
        assert [outcome.columns["properties"].count(text) for outcome, text in zip(outcomes, texts, strict=True)] == [
            2
        ] * 5


def test_dead_letters_say_what_was_found_and_where(decoding: Decoding) -> None:
    cases: list[dict[str, Any]] = [
        {"quantity": "7"},
        {"event_ts": "yesterday"},
        {"type": "rating", "rating": 11},
        {"context": {"consent": {"location": True}, "location": {"lat": 91, "lon": 0}}},
        {"type": "alias"},
    ]
    letters = [outcome.letter for outcome in decoding.views(cases)]
    assert all(letters)
    wrong, unparseable, broken, *_ = letters
    assert wrong.detail == 'expected an integer, found a string "7" at $.quantity'
    assert "'yesterday'" in unparseable.detail
    assert "rating = 11.0" in broken.detail
    assert broken.received_at == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert [one.event_id for one in letters] == [None, "e1", "e1", "e1", "e1"]
    assert [one.dataset for one in letters] == [None, None, "interactions", "contexts", "identities"]
