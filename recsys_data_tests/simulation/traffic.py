"""The events that clients send, and the truth about them: what was acknowledged, and what may become of it.

Every event has an id that stands in its line as text, so that a line tells whose it is wherever it turns up.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from recsys_data.ingestion.streaming.log import Appended

GOOD, BAD, DEPENDS = "good", "bad", "depends"
# Longer than the smaller limit of a line that a schedule sets, shorter than the larger.
LONG = "x" * 1500
ID = re.compile(rb'"event_id":"(e[0-9.]+)"')


@dataclass(frozen=True, slots=True)
class Event:
    """An event as its client sends it.

    Attributes:
        outcome: GOOD under every variant of the contracts and settings, BAD under every one, or it DEPENDS.
        context: whether an accepted one gives a row of `contexts`.
        voucher: whether it gives one of `vouchers`, where there is such a dataset.
    """

    id: str
    line: bytes
    outcome: str
    day: date
    context: bool
    voucher: bool


KINDS = (
    *("plain", "context", "voucher", "both", "identify", "nobody", "broken"),
    *("query", "query", "query", "page", "long", "long"),
)


def make(rng: random.Random, number: str, now: datetime) -> Event:
    """A new event under this number."""
    kind = rng.choice(KINDS)
    happened = now - timedelta(days=rng.choice((0, 0, 0, 0, 1, 1, 2, 15, 18)), minutes=rng.randrange(60))
    stamp = f"{happened:%Y-%m-%dT%H:%M:%SZ}"
    body: dict[str, Any] = {"event_id": f"e{number}", "type": "view", "user_id": "u", "event_ts": stamp}
    body["received_at"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    if kind in ("context", "both", "page") or (kind in ("query", "long", "identify") and rng.random() < 0.5):
        body["context"] = {"page": "qa" if kind == "page" else "/"}
    if kind in ("voucher", "both") or (kind in ("query", "page") and rng.random() < 0.5):
        body["voucher"] = {"code": "c"}
    body |= {
        "query": {"query": "qa"},
        "long": {"blob": LONG},
        "identify": {"type": "identify"},
        "nobody": {"user_id": ""},
    }.get(kind, {})
    line = json.dumps(body, separators=(",", ":")).encode()
    outcome = {"nobody": BAD, "broken": BAD, "query": DEPENDS, "page": DEPENDS, "long": DEPENDS}.get(kind, GOOD)
    if kind == "broken":
        line = line[:-1]
    return Event(f"e{number}", line, outcome, happened.date(), "context" in body, "voucher" in body)


def id_of(line: bytes) -> str:
    """Whose line it is; empty where that is unknown."""
    found = ID.search(line)
    return found[1].decode() if found else ""


@dataclass
class Truth:
    """What the outside world knows.

    Attributes:
        events: every event that was ever sent, by id.
        acknowledged: by place in the log, whose line is there for certain.
        lost_segments: places that somebody removed before every table had read them.
        given_up: ids of dead letters that were, or may have been, discarded.
        retired_before: event days before this one may have been retired.
        snapshots: by dataset and day, the states of which one has to be stored.
    """

    events: dict[str, Event] = field(default_factory=dict)
    acknowledged: dict[tuple[int, int], str] = field(default_factory=dict)
    lost_segments: set[tuple[int, int]] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    retired_before: date = date.min
    snapshots: dict[tuple[str, date], list[dict[str, str] | None]] = field(default_factory=dict)
    vouchers_always: bool = True

    def append(self, sent: Iterable[Event], where: Appended) -> None:
        """These lines were acknowledged, in this order."""
        at = where.start
        for one in sent:
            self.acknowledged[where.partition, at] = one.id
            at += len(one.line) + 1
        assert at == where.end

    def lines_of(self) -> Counter[str]:
        """How many lines of each id are in the log for certain, or were."""
        return Counter(name for place, name in self.acknowledged.items() if place not in self.lost_segments)

    def copy(self) -> "Truth":
        """As of now, for a backup."""
        return Truth(
            dict(self.events),
            dict(self.acknowledged),
            set(self.lost_segments),
            set(self.given_up),
            self.retired_before,
            {key: list(states) for key, states in self.snapshots.items()},
            self.vouchers_always,
        )

    def doubt(self, other: "Truth") -> None:
        """What happened since may or may not be part of this, too."""
        self.given_up |= other.given_up
        self.retired_before = max(self.retired_before, other.retired_before)
        self.doubt_snapshots(other)

    def doubt_snapshots(self, other: "Truth") -> None:
        """Each snapshot may be as the other says instead."""
        for key in self.snapshots.keys() | other.snapshots.keys():
            mine, theirs = (one.snapshots.get(key, [None]) for one in (self, other))
            self.snapshots[key] = [*mine, *(state for state in theirs if state not in mine)]
