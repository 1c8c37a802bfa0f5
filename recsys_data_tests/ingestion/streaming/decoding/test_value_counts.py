"""Counting values without parsing: right for strict JSON of any form, and never trusting what is not."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_data.contracts.rules import session
from recsys_data.ingestion.streaming.decoding import value_counts as counts_module
from recsys_data.ingestion.streaming.decoding.value_counts import (
    ARRAY,
    BOOLEAN,
    KINDS,
    MAX_DEPTH,
    NUMBER,
    OBJECT,
    STRING,
    ValueCounts,
    count_values,
)
from recsys_data_tests.support import oracle
from recsys_data_tests.support.decoding import slice_of
from recsys_data_tests.support.event_lines import NOT_JSON, Lines

MEMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), MEMBERS, max_size=5)
SEPARATORS = [(",", ":"), (", ", ": "), (",", ": "), (",\t", ":\t"), (",  ", ":  "), (" ,", " :")]


def counted(lines: list[bytes]) -> ValueCounts:
    given = slice_of(lines)
    return count_values(np.frombuffer(given.data, np.uint8), given.bounds)


def kinds(value: Any) -> list[int]:
    """Values that follow a key, by kind, by parsing."""
    counts = [0] * KINDS
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        counts = [one + other for one, other in zip(counts, kinds(inner), strict=True)]
        if isinstance(key, str) and inner is not None:
            kind = {str: STRING, bool: BOOLEAN, int: NUMBER, float: NUMBER, dict: OBJECT, list: ARRAY}[type(inner)]
            counts[kind] += 1
    return counts


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.tuples(OBJECTS, st.sampled_from(SEPARATORS), st.booleans()), min_size=1, max_size=8))
def test_values_of_strict_json_are_counted_or_the_line_is_ambiguous(
    events: list[tuple[Any, tuple[str, str], bool]],
) -> None:
    lines = [json.dumps(event, separators=style, ensure_ascii=ascii_).encode() for event, style, ascii_ in events]
    found = counted(lines)
    for (event, _, _), counts, ambiguous in zip(events, found.counts.tolist(), found.ambiguous.tolist(), strict=True):
        expected = kinds(event)
        # Text within a string that looks like a key can only add to the counts.
        assert ambiguous or all(count >= wanted for count, wanted in zip(counts, expected, strict=True))
        if not ambiguous and '":' not in json.dumps(list(_texts(event))).replace('\\"', '"'):
            assert counts == expected


def _texts(value: Any) -> list[str]:
    inner = (
        value.items() if isinstance(value, dict) else [("", one) for one in value] if isinstance(value, list) else []
    )
    texts = [value] if isinstance(value, str) else []
    return texts + [text for key, one in inner for text in (key, *_texts(one))]


def test_what_duckdb_takes_for_json_and_is_not_ambiguous_is_strict_json() -> None:
    lines = Lines(0, harm=0.3).take(3000)
    for number, word in enumerate(NOT_JSON * 4):
        space = ("", " ", "  ", "\t")[number % 4]
        places = (
            f'{{"a":{space}{word}}}',
            f'{{"a":[{space}{word}]}}',
            f'{{"a":[1,{space}{word}]}}',
            f'{{"a":[[{word}]]}}',
        )
        lines += [place.encode() for place in places]
    ambiguous = counted(lines).ambiguous
    texts = [line.decode("utf-8", "ignore") for line in lines]
    with session() as connection:
        connection.execute("CREATE TABLE lines (row INTEGER, line VARCHAR)")
        rows = [[row, text] for row, text in enumerate(texts) if not ambiguous[row]]
        connection.executemany("INSERT INTO lines VALUES (?, ?)", rows)
        taken = connection.execute("SELECT row FROM lines WHERE json_valid(line)").fetchall()
    assert len(taken) > 500
    for (row,) in taken:
        assert oracle.strict(texts[row]) is not None, texts[row]


def test_lines_of_ordinary_clients_are_not_odd() -> None:
    event = {
        "a": [1, -2.5, None, True, "x"],
        "b": {"c": []},
        "d": "2026-01-02T03:04:05Z",
        "e": -1,
        "f": None,
        "g": "é:",
    }
    lines = [json.dumps(event, separators=style).encode() for style in SEPARATORS[:4]]
    found = counted(lines)
    assert not found.ambiguous.any()
    assert found.counts.tolist() == [kinds(event)] * 4


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"a" :1}', b' {"a":1}', b"", b" ", b"[1]", b'{"a":1,}', b'{"a":[1,]}', b'{"a":[1, ]}', b'{"a":[1,\t]}'),
        *(b'{"a":nan}', b'{"a":-inf}', b'{"a":[nan]}', b'{"a":[-Infinity]}', b'{"a":[1, NaN]}', b'{"a":"\\u0022:1"}'),
        *(b'{"a\\u003a":1}', b'{"a":  1}', b'{"a":[  1]}', b'{"a":[1,  2]}', b'{"a":+1}', b'\xef\xbb\xbf{"a":1}'),
        b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b"{" + b",".join(b'"%d":1' % number for number in range(5000)) + b"}",
    ],
)
def test_what_needs_a_closer_look_is_odd_and_its_neighbours_are_not(line: bytes) -> None:
    good = b'{"b":"x","c":2}'
    assert counted([good, line, good, line]).ambiguous.tolist() == [False, True, False, True]
    assert counted([good, line, good]).counts[[0, 2]].tolist() == [kinds(json.loads(good))] * 2


def test_counting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(7, harm=0.05).take(400)
    whole = counted(lines)
    for size in (1, 100, 5000):
        monkeypatch.setattr(counts_module, "BLOCK_BYTES", size)
        blocks = counted(lines)
        assert blocks.counts.tolist() == whole.counts.tolist()
        assert blocks.ambiguous.tolist() == whole.ambiguous.tolist()


def test_nothing_is_counted_where_there_is_nothing() -> None:
    for bounds in ([0], [0, 0], [0, 0, 0]):
        found = count_values(np.zeros(0, np.uint8), np.array(bounds, np.int64))
        assert (found.counts.shape, found.ambiguous.shape) == ((len(bounds) - 1, KINDS), (len(bounds) - 1,))
