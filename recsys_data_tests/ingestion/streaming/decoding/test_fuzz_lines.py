"""Whatever stands in a line of the log, the line has one outcome, and one that somebody foresaw."""

import contextlib
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys_data.errors import BadRecord
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema
from recsys_data.ingestion.streaming.decoding.strict import decode_strictly
from recsys_data_tests.support.decoding import Decoding
from recsys_data_tests.support.fuzzing import LINES, examples
from recsys_data_tests.support.platform import Platform, view

NASTY = [
    b'{"event_id":"e1","quantity":1e999}',
    b'{"event_id":"\\ud800","query":"\\u0000"}',
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"quantity":' + b"9" * 100_000 + b"}",
    b"{" + b",".join(b'"k%d":{}' % number for number in range(100_000)) + b"}",
    b'{"event_id":"e1","event_id":"e2"}',
    b'{"context":{"location":{"lat":1e308,"lon":-1e308}}}',
    b"\x00" * 100,
    b"\xff\xfe{\x00}\x00",
]

# What takes a careless parser seconds: strings that do not end, numbers and escapes without end.
SLOW = {
    "quotes that are escaped": b'{"a":' + b"[" * 101 + b'"' + b'\\"' * 17_000,
    "a backslash at the end": b'{"a":' + b"[" * 101 + b'"' + b'\\"' * 17_000 + b"\\",
    "quotes": b'{"a":' + b"[" * 101 + b'"' * 34_000,
    "opening brackets": b"[" * 36_000,
    "objects in objects": b'{"a":' * 7_000,
    "digits": b'{"quantity":' + b"9" * 36_000 + b"}",
    "a long fraction": b'{"price":0.' + b"1" * 36_000 + b"e-5}",
    "a long time": b'{"event_ts":"2026-01-02T03:04:05.' + b"1" * 36_000 + b'Z"}',
    "escapes": b'{"query":"' + b"\\ud83d\\ude00" * 3_000 + b'"}',
    "halves of characters": b'{"query":"' + b"\\ud83d" * 6_000 + b'"}',
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(4_000)) + b"}",
    "one key": b"{" + b",".join([b'"a":0'] * 6_000) + b"}",
}


@pytest.mark.parametrize("line", SLOW.values(), ids=SLOW)
def test_no_line_takes_long(contracts: Any, line: bytes) -> None:
    schema = EventSchema(contracts)
    began = time.process_time()
    with contextlib.suppress(BadRecord):
        decode_strictly(line, schema)
    assert time.process_time() - began < 0.2


@examples(60)
@given(lines=st.lists(LINES, min_size=1, max_size=30))
@example(lines=NASTY)
def test_a_line_has_one_fate_that_is_foreseen_whichever_way_decodes_it(decoding: Decoding, lines: list[bytes]) -> None:
    outcomes = decoding.outcomes(lines)
    for line, outcome, exact in zip(lines, outcomes, decoding.exact_fates(lines), strict=True):
        assert outcome.reason != "undecodable", (line, outcome.letter)
        assert outcome.comparable() == exact.comparable(), line


@examples(3)
@given(lines=st.lists(LINES, min_size=1, max_size=60))
@example(lines=[*NASTY, b'{"event_id":"a"}'])
def test_whatever_stands_in_the_log_is_consumed_and_counted_once(make_platform, lines: list[bytes]) -> None:
    platform: Platform = make_platform(partitions=1)
    platform.append([view("first"), *lines, view("last")])
    platform.consume()
    assert {"first", "last"} <= set(platform.ids())
    assert platform.counts()[0] == len(lines) + 2
    stored = {bytes(row["raw"]) for row in platform.rows("dead_letters")}
    assert stored <= set(lines), "a dead letter is not byte for byte what stood in the log"
    platform.assert_whole()
