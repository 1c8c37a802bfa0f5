"""Memory and delay are bounded by what is held and how it is read, whatever clients send."""

import json
import weakref
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from recsys_data.contracts import Contract
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.decoding import decoded as decoded_module
from recsys_data.ingestion.streaming.decoding import raw_lines as lines_module
from recsys_data.ingestion.streaming.decoding.event_sql import EventSession
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.storage import parquet as write_module
from recsys_data_tests.support.decoding import ACCEPTED, NOW, VIEW, Decoding, slice_of
from recsys_data_tests.support.platform import Platform, view

MANY = 1100


def lines_of(**members: Any) -> list[bytes]:
    """As many views as are worth a statement, with these members."""
    return [json.dumps(VIEW | {"event_id": f"e{number}"} | members).encode() for number in range(MANY)]


@pytest.fixture
def fresh(contracts: Mapping[str, Contract]) -> Decoding:
    """A decoder that has seen no line yet."""
    return Decoding(contracts)


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("missing_event_id", {"event_id": None}),
    ("unknown_type", {"type": "stare"}),
    ("missing_actor", {"user_id": None}),
    ("unparseable_event_ts", {"event_ts": "yesterday"}),
]


@pytest.mark.parametrize(("reason", "members"), BROKEN)
def test_lines_that_break_a_rule_cost_no_python_each(
    fresh: Decoding, monkeypatch: pytest.MonkeyPatch, reason: str, members: dict[str, Any]
) -> None:
    made: list[object] = []
    make = decoded_module.DeadLetter.__init__
    lines = lines_of(**members)
    with monkeypatch.context() as patch:
        patch.setattr(
            decoded_module.DeadLetter, "__init__", lambda one, *a, **k: (made.append(one), make(one, *a, **k))[1]
        )
        with fresh._counted():
            decoded = fresh.decoder.decode(slice_of(lines), NOW)
    assert (len(decoded.dead), made, fresh.decode_strictly) == (MANY, [], 0)
    assert [letter.raw for letter in decoded.dead] == lines
    assert {letter.reason for letter in decoded.dead} == {reason}


def test_rejected_lines_wait_for_the_commit_as_dead_letters_only(fresh: Decoding) -> None:
    decoded = fresh.decoder.decode(slice_of([*lines_of(user_id=None), *lines_of()[:50]]), NOW)
    assert sum(len(part) for part, _ in decoded.candidates) == 50
    assert len(decoded.dead) == MANY


def test_a_burst_of_other_lines_does_not_slow_down_those_after_it(fresh: Decoding) -> None:
    usual = lines_of(price=1.5, currency="EUR", session_id="s", context={"page": "/home"})
    fresh.outcomes(usual)
    fresh.outcomes(lines_of(event_id=None, item_id=None, user_id=None))
    assert {outcome.reason for outcome in fresh.outcomes(usual)} == {ACCEPTED}
    assert fresh.decode_strictly == 0


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"properties": {"text": "x" * 3500}}, id="one long property"),
        pytest.param({f"field_{number}": number for number in range(180)}, id="many fields"),
    ],
)
def test_few_long_lines_are_read_together_but_not_all_at_once(
    fresh: Decoding, monkeypatch: pytest.MonkeyPatch, members: dict[str, Any]
) -> None:
    lines = [json.dumps(VIEW | {"event_id": f"e{number}"} | members).encode() for number in range(300)]
    sizes: list[int] = []
    query = EventSession.query

    def noted(session: EventSession, statement: str, name: str, table: pa.Table) -> pa.Table:
        sizes.append(sum(len(text or "") for text in table["line"].to_pylist()))
        return query(session, statement, name, table)

    monkeypatch.setattr(EventSession, "query", noted)
    monkeypatch.setattr(lines_module, "VECTOR_BYTES", 200_000)
    # So that the last piece is worth a statement too.
    monkeypatch.setattr(fresh.decoder, "limits", ConsumerLimits(statement_bytes=1))
    assert {outcome.reason for outcome in fresh.outcomes(lines)} == {ACCEPTED}
    assert fresh.decode_strictly == 0
    assert max(sizes) <= 200_000 + len(lines[0])


def test_what_is_no_object_is_seen_though_another_field_evens_it_out(fresh: Decoding) -> None:
    lines = lines_of(query={}, context={"device": "x"})
    assert {outcome.reason for outcome in fresh.outcomes(lines)} == {"wrong_type"}
    assert {outcome.reason for outcome in fresh.outcomes(lines_of(context={"device": {}}))} == {ACCEPTED}


def test_a_burst_slows_commits_down_only_by_a_share_of_its_length(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.append([view(f"e{number}") for number in range(100)])
    monkeypatch.setattr(consumer.time, "monotonic", lambda: 0.0)
    writer = consumer.StreamWriter(platform.open_lake(), platform.settings)
    nothing: Any = None
    running = consumer._Consumer(
        platform.log, writer, [], nothing, nothing, nothing, consumer.Until(), ConsumerLimits(slice_bytes=2000)
    )
    assert running._read() is not None
    paces = []
    for now in (0.0, 5.0, 50.0, 5000.0):
        monkeypatch.setattr(consumer.time, "monotonic", lambda now=now: now)
        paces.append(running._pace())
    assert paces == [1.0, 1.0, 5.0, 10.0]
    while running._read():
        pass
    assert running._pace() == 1.0


def test_days_are_gathered_one_after_the_other(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref] = []
    alive: list[int] = []
    write_day = write_module.write_day

    def noted(table: Any, day: int, parts: list[pa.Table], dictionary: list[str]) -> Any:
        held.append(weakref.ref(parts[0]))
        alive.append(sum(one() is not None for one in held))
        return write_day(table, day, parts, dictionary)

    monkeypatch.setattr(write_module, "write_day", noted)
    platform.append([view(f"e{number}", day=1 + number % 25) for number in range(100)])
    platform.consume()
    assert len(held) == 25
    # Two threads write, and each holds its last one until it begins the next.
    assert max(alive) <= 4
    platform.assert_whole()
