"""Decoding lines in tests: each line's outcome, by the way that the decoder chooses or by the exact way alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion.streaming.decoding import decoder as decode
from recsys_data.ingestion.streaming.decoding.decoded import DeadLetter, Decoded
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.decoding.validator import Validator
from recsys_data.ingestion.streaming.decoding.value_counts import KINDS, ValueCounts
from recsys_data.ingestion.streaming.limits import DEFAULT_LIMITS, ConsumerLimits
from recsys_data.ingestion.streaming.log import LogSlice

FIRST_DAY = date(1995, 1, 1)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MAX_EVENT_BYTES = 4096
ACCEPTED = "accepted"
VIEW = {
    "event_id": "e1",
    "type": "view",
    "user_id": "u1",
    "item_id": "i1",
    "event_ts": "2026-01-02T03:04:05.678Z",
    "received_at": "2026-01-02T03:04:06Z",
}


def slice_of(lines: Sequence[bytes], newline: bytes = b"\n", partition: int = 0, start: int = 0) -> LogSlice:
    """The lines as the log gives them; without newlines as a backend may that keeps records apart otherwise."""
    ended = [line + newline for line in lines]
    bounds = np.concatenate([[0], np.cumsum([len(line) for line in ended])]).astype(np.int64)
    return LogSlice(partition, start, start + int(bounds[-1]), b"".join(ended), bounds, start + bounds[:-1])


def decoder_of(
    contracts: Mapping[str, Contract],
    first_day: date = FIRST_DAY,
    max_event_bytes: int = MAX_EVENT_BYTES,
    limits: ConsumerLimits = DEFAULT_LIMITS,
) -> Decoder:
    """A decoder with a session of its own."""
    return Decoder(EventSession(EventSchema(contracts), first_day), max_event_bytes, limits)


def validated(decoder: Decoder, lines: LogSlice, now: datetime = NOW) -> Decoded:
    """A slice with nothing deferred."""
    (decoded,) = Validator(decoder.session).validate([decoder.decode(lines, now)])
    return decoded


def decode_lines(
    decoder: Decoder, lines: Sequence[bytes], newline: bytes = b"\n", now: datetime = NOW
) -> tuple[list[dict[str, Any]], list[DeadLetter]]:
    """The events among the lines, with every column, and the dead letters."""
    decoded = validated(decoder, slice_of(lines, newline), now)
    columns = dict.fromkeys(decoder.schema.validated_columns)
    events = [columns | event for part, good in decoded.candidates for event in part.filter(pa.array(good)).to_pylist()]
    dead = list(decoded.dead)
    assert all(letter.raw == lines[letter.row] for letter in dead)
    return events, dead


@dataclass
class Outcome:
    """What became of a line: `accepted` with its columns, or the reason with the dead letter."""

    reason: str
    columns: dict[str, Any] = field(default_factory=dict)
    letter: DeadLetter | None = None

    def comparable(self) -> tuple:
        shown = {name: value for name, value in self.columns.items() if value is not None and name != "row"}
        if "properties" in shown:
            shown["properties"] = plain(shown["properties"])
        return (self.reason, sorted(shown.items(), key=lambda item: item[0]))


class Decoding:
    def __init__(
        self, contracts: Mapping[str, Contract] | None = None, limits: ConsumerLimits = DEFAULT_LIMITS
    ) -> None:
        self.contracts = contracts or load_contracts()
        self.decoder = decoder_of(self.contracts, limits=limits)
        self.decode_strictly = 0

    def outcomes(self, lines: Sequence[bytes], newline: bytes = b"\n") -> list[Outcome]:
        """One outcome a line; fails unless there is exactly one. `decode_strictly` counts the lines read one by one."""
        with self._counted():
            events, dead = decode_lines(self.decoder, lines, newline)
        rows = sorted([event["row"] for event in events] + [letter.row for letter in dead])
        assert rows == list(range(len(lines))), "a line has no outcome, or more than one"
        outcomes: dict[int, Outcome] = {event["row"]: Outcome(ACCEPTED, event) for event in events}
        outcomes |= {letter.row: Outcome(letter.reason, {}, letter) for letter in dead}
        return [outcomes[row] for row in range(len(lines))]

    def outcome(self, line: bytes | dict[str, Any]) -> Outcome:
        return self.outcomes([line if isinstance(line, bytes) else json.dumps(line).encode()])[0]

    def views(self, cases: Sequence[dict[str, Any]]) -> list[Outcome]:
        """The outcome of a good view with these members in place of its own, the same by the exact way."""
        lines = [json.dumps(VIEW | members).encode() for members in cases]
        exactly = self.exact_fates(lines)
        outcomes = self.outcomes(lines)
        assert [outcome.comparable() for outcome in outcomes] == [outcome.comparable() for outcome in exactly]
        return outcomes

    def exact_fates(self, lines: Sequence[bytes]) -> list[Outcome]:
        """The outcomes by the exact way alone."""

        def all_odd(data: Any, bounds: Any) -> ValueCounts:
            return ValueCounts(np.zeros((len(bounds) - 1, KINDS), np.int64), np.ones(len(bounds) - 1, bool))

        with patch.object(decode, "count_values", all_odd):
            outcomes = self.outcomes(lines)
        assert self.decode_strictly == sum(outcome.reason != "event_too_large" for outcome in outcomes)
        return outcomes

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.decode_strictly = 0
        read = decode.decode_strictly

        def counted(*args: Any) -> dict[str, Any]:
            self.decode_strictly += 1
            return read(*args)

        with patch.object(decode, "decode_strictly", counted):
            yield


def plain(text: str) -> Any:
    """Parsed `properties`, without what says nothing: nulls and empty objects where columns are taken from."""
    return _without_nothing(json.loads(text), 3)


def _without_nothing(value: Any, levels: int) -> Any:
    if not isinstance(value, dict) or not levels:
        return value
    inner = {key: _without_nothing(one, levels - 1) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one is not None and one != {}} or None
