"""A line that a step of decoding fails on becomes a dead letter; it stops neither its neighbours nor the stream."""

import json
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.decoding import decoder as decode
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.event_sql import EventSession
from recsys_data.ingestion.streaming.decoding.validator import Validator
from recsys_data_tests.support.decoding import (
    ACCEPTED,
    NOW,
    VIEW,
    Decoding,
    decode_lines,
    decoder_of,
    slice_of,
)
from recsys_data_tests.support.platform import view

POISON = "poisoned"
FAULTS = [
    ValueError(f"cannot take '{POISON}'"),
    KeyError(POISON),
    RecursionError(),
    OverflowError("int too large"),
    pa.ArrowInvalid(f'no "{POISON}"'),
    pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes"),
    duckdb.ConversionException(f"Conversion Error: Could not convert string '{POISON}' to INT32"),
    duckdb.InternalException("INTERNAL Error: Attempted to access index 7 within vector of size 7"),
    AssertionError(),
]
OF_THE_MACHINE = [MemoryError(), OSError(28, "No space left on device"), pa.ArrowMemoryError("malloc failed")]


def lines_with(bad: set[int], count: int) -> list[bytes]:
    return [json.dumps(VIEW | {"event_id": POISON if n in bad else f"e{n}"}).encode() for n in range(count)]


def fail_on_poison(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, fault: Exception) -> None:
    """Let a function of the real path fail where its input holds the poison."""
    whole = getattr(module, name)

    def failing(*given: Any) -> Any:
        if any(POISON in str(bytes(one)) for one in given if isinstance(one, bytes | np.ndarray)):
            raise fault
        return whole(*given)

    monkeypatch.setattr(module, name, failing)


def fail_to_judge_poison(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> list[int]:
    """Let every statement fail that has the poison among its rows; returns how many rows each attempt had."""
    whole = EventSession.query
    attempts: list[int] = []

    def failing(self: EventSession, statement: str, name: str, table: pa.Table) -> pa.Table:
        attempts.append(len(table))
        texts = table["line" if "line" in table.column_names else "event_id"].to_pylist()
        if any(POISON in text for text in texts if text):
            raise fault
        return whole(self, statement, name, table)

    monkeypatch.setattr(EventSession, "query", failing)
    return attempts


@pytest.mark.parametrize("fault", [FAULTS[0], FAULTS[-2]], ids=repr)
def test_lines_that_cannot_be_judged_are_found_among_many(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    bad = {0, 700, 701, 1499}
    lines = lines_with(bad, 1500)
    attempts = fail_to_judge_poison(monkeypatch, fault)
    events, dead = decode_lines(decoding.decoder, lines)
    assert {letter.row for letter in dead} == bad
    assert {event["row"] for event in events} == set(range(1500)) - bad
    assert {letter.reason for letter in dead} == {"undecodable"}
    assert all(type(fault).__name__ in letter.detail and POISON not in letter.detail for letter in dead)
    assert len(attempts) < 2 * len(bad) * 12 + 12


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_what_the_vectorised_ways_fail_on_is_read_one_by_one(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    fail_on_poison(monkeypatch, decode, "count_values", fault)
    assert [outcome.reason for outcome in decoding.outcomes(lines_with({3}, 20))] == [ACCEPTED] * 20
    assert type(fault).__name__ in caplog.text
    assert POISON not in caplog.text


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_line_that_cannot_be_read_exactly_is_a_dead_letter(
    any_decoding: Decoding, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    fail_on_poison(monkeypatch, decode, "decode_strictly", fault)
    events, dead = decode_lines(any_decoding.decoder, lines_with({3}, 20))
    assert [(letter.row, letter.reason) for letter in dead] == [(3, "undecodable")]
    assert len(events) == 19


@pytest.mark.parametrize("fault", [*OF_THE_MACHINE, Transient("later")], ids=repr)
@pytest.mark.parametrize("place", ["count_values", "decode_strictly", "validate"])
def test_what_is_the_machines_fault_makes_no_dead_letter(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, fault: Exception, place: str
) -> None:
    if place == "validate":
        fail_to_judge_poison(monkeypatch, fault)
    else:
        monkeypatch.setattr(decoding.decoder, "_are_many", lambda *_: False)
        fail_on_poison(monkeypatch, decode, place, fault)
    with pytest.raises(type(fault)):
        decode_lines(decoding.decoder, lines_with({3}, 20))


class BrokenSession:
    """A DuckDB session that was broken, or is out of memory."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault
        self.closed = False

    def register(self, *_: object) -> None: ...
    def unregister(self, _: str) -> None: ...
    def execute(self, _: str) -> None: ...

    def sql(self, _: str) -> None:
        raise self.fault

    def close(self) -> None:
        self.closed = True


def decoder_with(contracts: Any, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, BrokenSession]:
    decoder = decoder_of(contracts)
    broken = BrokenSession(fault)
    monkeypatch.setattr(decoder.session, "_made", broken)
    return decoder, broken


def test_a_signal_during_a_query_is_no_fault_of_the_lines(contracts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = decoder_with(contracts, RuntimeError("Query interrupted"), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        decode_lines(decoder, lines_with(set(), 10))


def test_a_session_that_an_event_broke_is_replaced(contracts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, broken = decoder_with(contracts, duckdb.InternalException("INTERNAL Error"), monkeypatch)
    events, dead = decode_lines(decoder, lines_with(set(), 10))
    assert (len(events), dead) == (10, [])
    assert broken.closed


def test_too_little_memory_is_no_fault_of_an_event(contracts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = decoder_with(contracts, duckdb.OutOfMemoryException("Out of Memory Error"), monkeypatch)
    with pytest.raises(Transient, match="Out of Memory"):
        decode_lines(decoder, lines_with(set(), 10))


def test_what_fails_whatever_the_event_stops_the_stream(contracts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(contracts)
    validator = Validator(decoder.session)
    monkeypatch.setattr(validator, "_statement", "SELECT nothing FROM fields")
    decoded = decoder.decode(slice_of(lines_with(set(), 4)), NOW)
    with pytest.raises(Permanent, match="fails whatever the event"):
        validator.validate([decoded])
    assert len(decoded.deferred) == 4


def test_a_stream_with_poison_goes_on_and_its_counts_balance(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_judge_poison(monkeypatch, pa.ArrowInvalid("broken"))
    platform.append([view("a"), view(POISON), view("b")], writer=0)
    platform.append([view("c"), view("a"), view(POISON)], writer=1)
    platform.consume()
    assert platform.ids() == ["a", "b", "c"]
    assert platform.counts() == (6, 3, 1, 2)
    assert {row["raw"] for row in platform.rows("dead_letters")} == {view(POISON)}
    platform.assert_whole()
