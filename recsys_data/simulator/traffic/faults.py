"""Planted faults: each turns one good line into a line that breaks exactly one rule, and says which.

`malformed` breaks the text, `violating` breaks the contract. Both deal their faults from a shuffled deck, so
that every kind comes up once in a while even in a short run.
"""

import json
import random
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]

BAD_TIMES = (
    "yesterday", "2026-13-40T25:61:00Z", "2026-01-02T03:04:05", "2026-01-02", "02/01/2026 03:04",
    "1767225600", "2026-02-30T10:00:00Z",
)  # fmt: skip
# Far enough before 1995 that the correction of a wrong clock does not make them valid.
OLD_TIMES = (
    "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", "1994-11-30T23:59:59.999Z", "1980-01-06T00:00:19Z",
    "0001-01-01T00:00:00Z", "1994-07-16T09:30:00.000Z",
)  # fmt: skip
FUTURE_FROM = 2090  # years from here on are the future, whenever the lines are read
WRONG_TYPES: tuple[tuple[str, Any], ...] = (
    ("quantity", "7"), ("quantity", 2.5), ("position", "3"), ("position", True), ("dwell_ms", "1200"),
    ("dwell_ms", 12.5), ("item_id", 4711), ("session_id", 12), ("user_id", 1234), ("event_id", 99),
    ("type", 5),
    ("value", "12.50"), ("price", "9,99"), ("rating", "4"), ("scroll_depth", "0.4"), ("currency", 978),
    ("query", ["shoes"]), ("properties", "none"), ("context", []), ("context.timezone", 120),
    ("context.device.os", 17), ("context.location.lat", "52.5"), ("context.consent.location", "yes"),
)  # fmt: skip
WRONG_PLACES = ((91.5, 13.4), (-123.4, 48.9), (52.5, 181.2), (0.5, -500), (999, 999))
TOO_LARGE = 40 * 1024


def _without(event: Event, rng: random.Random, *names: str) -> None:
    """Take fields away the ways that clients do: absent, null or empty."""
    for name in names:
        event[name] = rng.choice((None, ""))
        if rng.random() < 0.5:
            del event[name]


def _put(event: Event, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        event = event.setdefault(parent, {})
    event[name] = value


def _wrong_type(event: Event, rng: random.Random) -> None:
    path, value = rng.choice(WRONG_TYPES)
    if path == "context.location.lat":
        _wrong_place(event, rng)
    _put(event, path, value)


def _wrong_place(event: Event, rng: random.Random) -> None:
    lat, lon = rng.choice(WRONG_PLACES)
    _put(event, "context.consent.location", True)
    _put(event, "context.location.lat", lat)
    _put(event, "context.location.lon", lon)


def _missing_actor(event: Event, rng: random.Random) -> None:
    if rng.random() < 0.25:
        event["type"] = "identify"
    _without(event, rng, "user_id", "anonymous_id")


def _no_rating(event: Event, rng: random.Random) -> None:
    event["type"] = "rating"
    event["rating"] = rng.choice((11, -1, 10.5, 100, None))


def _statement(kind: str, field: str) -> Callable[[Event, random.Random], None]:
    def change(event: Event, rng: random.Random) -> None:
        for name in ("item_id", "position", "list_id"):
            event.pop(name, None)
        event["type"] = kind
        _without(event, rng, field)

    return change


def _custom(event: Event, rng: random.Random) -> None:
    event["type"] = "custom"
    _without(event, rng, "event_name")


def _future(event: Event, rng: random.Random) -> None:
    event["event_ts"] = f"{rng.randint(FUTURE_FROM, 2199)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T10:20:30Z"


def _sets(field: str, *values: Any) -> Callable[[Event, random.Random], None]:
    return lambda event, rng: event.__setitem__(field, rng.choice(values))


def _lacks(field: str) -> Callable[[Event, random.Random], None]:
    return lambda event, rng: _without(event, rng, field)


# reason -> (cards in the deck, change to a good interaction that has an item and a context)
VIOLATIONS: dict[str, tuple[int, Callable[[Event, random.Random], None]]] = {
    "event_too_large": (1, _sets("note", "x" * TOO_LARGE)),
    "wrong_type": (24, _wrong_type),
    "unparseable_event_ts": (8, _sets("event_ts", *BAD_TIMES)),
    "unparseable_sent_at": (4, _sets("sent_at", *BAD_TIMES)),
    "unparseable_client_event_ts": (3, _sets("client_event_ts", *BAD_TIMES)),
    "missing_event_id": (6, _lacks("event_id")),
    "missing_type": (6, _lacks("type")),
    "missing_event_ts": (6, _lacks("event_ts")),
    "unknown_type": (8, _sets("type", "clik", "View", "product_viewed", "Order Completed", "purchase ")),
    "event_id_too_long": (3, _sets("event_id", "x" * 257, "y" * 300, "é" * 1000)),
    "missing_actor": (8, _missing_actor),
    "missing_item": (8, _lacks("item_id")),
    "missing_event_name": (4, _custom),
    "rating_out_of_range": (5, _no_rating),
    "negative_value": (5, _sets("value", -1, -0.01, -149.9)),
    "scroll_depth_out_of_range": (5, _sets("scroll_depth", 1.01, 55, -0.2)),
    "negative_dwell": (5, _sets("dwell_ms", -1, -86_400_000)),
    "event_before_first_day": (6, _sets("event_ts", *OLD_TIMES)),
    "event_in_future": (6, _future),
    "coordinates_out_of_range": (6, _wrong_place),
    "missing_previous_id": (4, _statement("alias", "previous_id")),
    "missing_group_id": (4, _statement("group", "group_id")),
}
DUPLICATE_KEY_CARDS = 6

# Texts that are not JSON (RFC 8259); each takes a good line.
MALFORMED: tuple[Callable[[str, random.Random], str], ...] = (
    lambda text, rng: text[: rng.randrange(1, len(text))],
    lambda text, rng: text.replace('":', '" ', 1),
    lambda text, rng: f"{text[:-1]},}}",
    lambda text, rng: rng.choice(("GET / HTTP/1.1", "", "-- MARK --", "\x16\x03\x01", "event_id;type;event_ts")),
    lambda text, rng: f'{text[:-1]},"score":{rng.choice(("NaN", "-Infinity", "007", ".5", "undefined", "True"))}}}',
    lambda text, rng: text.replace('"', "'"),
    lambda text, rng: f'{text[:-1]},"note":"{rng.choice(("a" + chr(9) + "b", chr(92) + "x41", chr(92) + "u12"))}"}}',
    lambda text, rng: text + rng.choice((text, "}", ",", " // sent twice")),
    lambda text, rng: text.replace('{"', "{", 1),
)
INVALID_UTF8 = (b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xe6\x9d", b"\xc0\xaf", b"\xf5\x80\x80\x80")


class Faults:
    """Deals faults; the same seed deals the same ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._texts: list[str] = []
        self._violations: list[str] = []

    def malformed(self, line: bytes) -> tuple[bytes, str]:
        """A line that is not a JSON object, and the reason."""
        if not self._texts:
            self._texts = ["malformed_json"] * 12 + ["invalid_utf8"] * 4 + ["not_an_object"] * 4
            self.rng.shuffle(self._texts)
        reason = self._texts.pop()
        text = line.decode()
        if reason == "malformed_json":
            return self.rng.choice(MALFORMED)(text, self.rng).encode(), reason
        if reason == "invalid_utf8":
            return line[:-1] + b',"note":"' + self.rng.choice(INVALID_UTF8) + b'"}', reason
        return self.rng.choice((f"[{text}]", '"view"', "42", "null", "true", "[]")).encode(), reason

    def violating(self, line: bytes) -> tuple[bytes, str]:
        """A line that breaks the contract, and the reason; `line` has an item, a context and an actor."""
        if not self._violations:
            self._violations = [reason for reason, (cards, _) in VIOLATIONS.items() for _ in range(cards)]
            self._violations += ["duplicate_key"] * DUPLICATE_KEY_CARDS
            self.rng.shuffle(self._violations)
        reason = self._violations.pop()
        event = json.loads(line)
        if reason == "duplicate_key":
            name = self.rng.choice(("session_id", "item_id", "type", "source"))
            again = json.dumps(self.rng.choice((event[name], "other")))
            return b"{" + f'"{name}":{again},'.encode() + line[1:], reason
        VIOLATIONS[reason][1](event, self.rng)
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(), reason
