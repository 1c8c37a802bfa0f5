"""What was really emitted, line by line: the numbers that a reader of the lines must arrive at.

accepted + duplicates + sum(dead_letters) == events
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys_data.simulator.ranking_truth import RankingTotals
from recsys_data.simulator.traffic.behaviour import IDENTITIES_FROM, KIND, KINDS
from recsys_data.simulator.world import World

REASONS = (
    "event_too_large", "invalid_utf8", "malformed_json", "not_an_object", "duplicate_key", "wrong_type",
    "unparseable_event_ts", "unparseable_sent_at", "unparseable_client_event_ts",
    "missing_event_id", "missing_type", "missing_event_ts", "unknown_type",
    "event_id_too_long", "missing_actor", "missing_item", "missing_event_name", "rating_out_of_range",
    "negative_value", "scroll_depth_out_of_range", "negative_dwell", "event_before_first_day",
    "event_in_future",
    "coordinates_out_of_range", "missing_previous_id", "missing_group_id",
)  # fmt: skip
OUTCOMES = ("accepted", "duplicate", *REASONS)
OUTCOME = {name: code for code, name in enumerate(OUTCOMES)}
ACCEPTED, DUPLICATE = 0, 1


def iso(microseconds: int) -> str:
    """RFC 3339 in UTC with all six decimals, of microseconds since 1970."""
    return f"{np.datetime64(microseconds, 'us')}Z"


@dataclass
class Truth:
    """Running totals over the lines emitted so far.

    Attributes:
        world: the shop the lines are about.
        outcomes: lines by `OUTCOMES`.
        kinds: accepted lines by `KINDS`.
        contexts: accepted lines that carry context.
        late: accepted lines whose `event_ts` is a day or more before their `sent_at`.
        redacted: accepted lines with coordinates or an internet address but no consent to exact location.
        redacted_coordinates: those of them with coordinates.
        first, last: earliest and latest accepted `event_ts`, microseconds; None before the first.
        clicks, lost_clicks: first deliveries of clicks, and those of them that a planted fault made dead letters.
        ranking: true values of ranking policies, over all visits that have begun.
        seen_users, seen_items: which people (as users) and items occur in accepted interactions.
    """

    world: World
    outcomes: np.ndarray = field(default_factory=lambda: np.zeros(len(OUTCOMES), np.int64))
    kinds: np.ndarray = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    contexts: int = 0
    late: int = 0
    redacted: int = 0
    redacted_coordinates: int = 0
    first: int | None = None
    last: int | None = None
    clicks: int = 0
    lost_clicks: int = 0
    ranking: RankingTotals = field(default_factory=RankingTotals)
    seen_users: np.ndarray = field(init=False)
    seen_items: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.seen_users = np.zeros(len(self.world.people), bool)
        self.seen_items = np.zeros(len(self.world.items.item_id), bool)

    def add(self, facts: np.ndarray) -> None:
        """Count lines that are emitted now; `facts` has the dtype `rows.FACTS`."""
        self.outcomes += np.bincount(facts["outcome"], minlength=len(OUTCOMES))
        clicks = (facts["kind"] == KIND["click"]) & (facts["outcome"] != DUPLICATE)
        self.clicks += int(clicks.sum())
        self.lost_clicks += int((clicks & (facts["outcome"] != ACCEPTED)).sum())
        good = facts.take(np.nonzero(facts["outcome"] == ACCEPTED)[0])
        if not len(good):
            return
        self.kinds += np.bincount(good["kind"], minlength=len(KINDS))
        self.contexts += int(good["context"].sum())
        self.late += int(good["late"].sum())
        self.redacted += int(good["redacted"].sum())
        self.redacted_coordinates += int(good["exposed"].sum())
        self.seen_users[good["user"][good["user"] >= 0]] = True
        self.seen_items[good["item"][good["item"] >= 0]] = True
        first, last = int(good["event"].min()), int(good["event"].max())
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)

    @property
    def events(self) -> int:
        """Lines emitted in all."""
        return int(self.outcomes.sum())

    def ranking_dict(self) -> dict[str, Any]:
        """What ranking policies are worth, as plain JSON values; of what is stored, less the share of clicks lost."""
        return self.ranking.to_dict() | {"share_of_clicks_lost": self.lost_clicks / max(self.clicks, 1)}

    def to_dict(self) -> dict[str, Any]:
        """The totals as plain JSON values; only reasons and types that occurred are listed."""
        return {
            "events": self.events,
            "accepted": int(self.outcomes[ACCEPTED]),
            "duplicates": int(self.outcomes[DUPLICATE]),
            "dead_letters": {
                reason: int(self.outcomes[OUTCOME[reason]]) for reason in REASONS if self.outcomes[OUTCOME[reason]]
            },
            "interactions": int(self.kinds[:IDENTITIES_FROM].sum()),
            "identities": int(self.kinds[IDENTITIES_FROM:].sum()),
            "contexts": self.contexts,
            "late": self.late,
            "redacted": self.redacted,
            "redacted_coordinates": self.redacted_coordinates,
            "first_event_ts": None if self.first is None else iso(self.first),
            "last_event_ts": None if self.last is None else iso(self.last),
            "users": int(self.seen_users.sum()),
            "items": int(self.seen_items.sum()),
            "by_type": {kind: int(self.kinds[code]) for code, kind in enumerate(KINDS) if self.kinds[code]},
        }
