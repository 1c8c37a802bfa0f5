"""Visits to an ordered stream of lines, with faults and redeliveries among them.

Lines wait in one array, sorted by arrival, until they are due. A redelivery arrives after its original.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from recsys_data.simulator.rhythm import HOUR, SECOND
from recsys_data.simulator.traffic.behaviour import IDENTITIES_FROM, Visit, behave
from recsys_data.simulator.traffic.faults import Faults
from recsys_data.simulator.traffic.lines import render
from recsys_data.simulator.traffic.rows import Rows, empty
from recsys_data.simulator.traffic.sessions import Ints, draw
from recsys_data.simulator.truth import ACCEPTED, DUPLICATE, OUTCOME
from recsys_data.simulator.world import World

NEVER = int(np.iinfo(np.int64).max)
WAITING = 20_000  # with more redeliveries than this waiting, further ones come at once
SENT_AT = re.compile(rb'("sent_at": ?")[^"]*"')


@dataclass(frozen=True)
class Shares:
    """Shares of all lines: `malformed` and `violations` are dead letters, `late` lines are good."""

    malformed: float = 0.005
    violations: float = 0.01
    duplicates: float = 0.01
    late: float = 0.02


SHARES = Shares()


class Stream:
    """The lines of one shop."""

    def __init__(
        self,
        world: World,
        seed: list[int],
        shares: Shares,
        on_visit: Callable[[Visit], None],
        until: int = NEVER,
    ) -> None:
        """Begin without lines.

        Args:
            world: the shop and its people.
            seed: of all randomness.
            shares: of faults and late events.
            on_visit: gets each block of visits as it begins.
            until: nothing arrives then or later, microseconds.
        """
        self.world = world
        self.shares = shares
        self.on_visit = on_visit
        self.until = until
        self.rng = np.random.default_rng(seed)
        self.faults = Faults(int(self.rng.integers(1 << 62)))
        self.pending = empty()
        self._visits, self._lines = 20, 820  # what a visit brings, until it is known better

    @property
    def lines_per_visit(self) -> float:
        """Lines that a visit brings in the end, redeliveries included."""
        return self._lines / self._visits

    def some(self, expected: float) -> int:
        """A whole number near `expected`, which it is on average."""
        return int(expected + self.rng.random())

    def visit(self, start: int, end: int, visits: int, since: int = 0) -> None:
        """Let `visits` sessions begin in `[start, end)`; what happens before `since` is left out."""
        if not visits:
            return
        sessions = draw(self.world, self.rng, start, end, visits, self.shares.late)
        visit = behave(self.world, self.rng, sessions)
        self.on_visit(visit)
        self._visits += visits
        self._lines += round(len(visit.events) / (1 - self.shares.duplicates))
        kept = (visit.events.time >= since) & (visit.events.time < self.until)
        rows = render(self.world, self.rng, replace(visit, events=visit.events.only(kept)))
        rows = rows.sorted()
        rows = rows[: np.searchsorted(rows.facts["arrival"], self.until)]
        self._break(rows)
        self.pending = Rows.join([self.pending, rows, self._redeliver(rows)]).sorted()

    def waiting(self, before: int) -> int:
        """How many lines arrive before a time."""
        return int(np.searchsorted(self.pending.facts["arrival"], before))

    def due(self, before: int) -> Rows:
        """Take out the lines that arrive before a time, in order."""
        cut = self.waiting(before)
        rows, self.pending = self.pending[:cut], self.pending[cut:]
        return rows

    def _break(self, rows: Rows) -> None:
        """Turn the planned shares of `rows` into faults, in place."""
        facts = rows.facts
        fits = (facts["item"] >= 0) & (facts["kind"] < IDENTITIES_FROM) & facts["context"]
        fresh = 1 - self.shares.duplicates
        malformed = self.some(len(rows) * self.shares.malformed / fresh)
        violating = self.some(len(rows) * self.shares.violations / fresh)
        chosen = self.rng.permutation(np.nonzero(fits)[0])[: malformed + violating]
        for number, i in enumerate(chosen.tolist()):
            change = self.faults.malformed if number < malformed else self.faults.violating
            rows.lines[i], reason = change(rows.lines.item(i))
            facts["outcome"][i] = OUTCOME[reason]

    def _delays(self, arrival: Ints) -> Ints:
        """How much later each redelivery comes: mostly at once, some after hours, some after days."""
        size = len(arrival)
        soon = self.rng.exponential(20.0, size) * SECOND
        hours = self.rng.exponential(5.0, size) * HOUR
        days = (16 + self.rng.exponential(30.0, size)) * HOUR
        room = (self.pending.facts["outcome"] == DUPLICATE).sum() < WAITING
        draw = self.rng.random(size) if room else np.zeros(size)
        delay = np.where(draw < 0.7, soon, np.where(draw < 0.88, hours, days))
        left = (self.until - arrival).astype(float)
        delay = np.where(delay < left, delay, self.rng.random(size) * left)
        return np.maximum(delay.astype(np.int64), 1)

    def _redeliver(self, rows: Rows) -> Rows:
        """Second deliveries of some accepted rows, half of them with a later `sent_at`."""
        count = self.some(len(rows) * self.shares.duplicates / (1 - self.shares.duplicates))
        chosen = self.rng.permutation(np.nonzero(rows.facts["outcome"] == ACCEPTED)[0])[:count]
        again = rows.take(np.sort(chosen))
        again.facts["outcome"] = DUPLICATE
        again.facts["arrival"] += self._delays(again.facts["arrival"])
        resent = np.nonzero(self.rng.random(len(again)) < 0.5)[0].tolist()
        sent = np.datetime_as_string(again.facts["arrival"].astype("datetime64[us]"), unit="ms")
        for i in resent:
            again.lines[i] = SENT_AT.sub(rf'\g<1>{sent[i]}Z"'.encode(), again.lines[i])
        return again
