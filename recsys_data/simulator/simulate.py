r"""A planned run: so many lines of storefront traffic, spread over some days, with the truth about them.

Data flow: world -> sessions -> lists -> behaviour -> lines -> faults, redeliveries -> batches.
Run alone: `recsys-data simulate --events 10000 --to FILE`.

    >>> plan = Plan(events=500, end=datetime(2026, 1, 5, tzinfo=UTC))
    >>> batches = list(simulate(plan))
    >>> sum(len(batch.lines) for batch in batches), batches[-1].truth.events
    (500, 500)
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from recsys_data.days import to_microseconds
from recsys_data.errors import UserError
from recsys_data.simulator import rhythm
from recsys_data.simulator.catalogue import PLACES
from recsys_data.simulator.traffic.behaviour import Visit
from recsys_data.simulator.traffic.faults import FUTURE_FROM
from recsys_data.simulator.traffic.rows import Rows
from recsys_data.simulator.traffic.sessions import LATE_DAYS
from recsys_data.simulator.traffic.stream import SHARES, Shares, Stream
from recsys_data.simulator.truth import Truth
from recsys_data.simulator.world import World, build

LINES_PER_WINDOW = 20_000
FIRST_DAY = datetime(1995, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Plan:
    """What to simulate; equal plans give equal bytes, and no two different plans share an event id.

    Attributes:
        events: lines to emit, faults and redeliveries included.
        end: when the run ends (aware); nothing is sent later.
        days: length of the run.
        seed: another seed is other traffic in the same shop.
        shares: shares of faults and late events.
        world: seed of the shop.

    Raises:
        UserError: a number makes no sense, or the run leaves the years that event times may be in.
    """

    events: int
    end: datetime = field(default_factory=lambda: datetime.now(UTC))
    days: float = 3.0
    seed: int = 0
    shares: Shares = SHARES
    world: int = 2026

    def __post_init__(self) -> None:
        if self.events < 0 or self.seed < 0:
            raise UserError(f"Cannot simulate {self.events} events with seed {self.seed}: neither may be negative.")
        if not 0 < self.days <= 3660:
            raise UserError(f"Cannot simulate {self.days} days: give more than 0 and at most 3660.")
        if self.end.tzinfo is None:
            raise UserError(f"The end {self.end} has no time zone: add one, e.g. {self.end.isoformat()}Z.")
        earliest = self.end - timedelta(days=self.days + LATE_DAYS)
        if earliest < FIRST_DAY or self.end.year >= FUTURE_FROM:
            raise UserError(
                f"The run from {earliest} (late events included) to {self.end} is too far away:"
                f" event times lie between {FIRST_DAY.year} and {FUTURE_FROM - 1}."
            )


@dataclass(frozen=True)
class Batch:
    """Lines to deliver, in order and without newlines, and the totals up to and including them.

    `truth` is one object that goes on counting when the next batch is asked for: use it before that.
    """

    lines: list[bytes]
    truth: Truth


def people_by_place(world: World) -> np.ndarray:
    """Share of all visits by place, shape (places,)."""
    return np.bincount(world.people.place, weights=world.people.activity, minlength=len(PLACES))


def observers(truth: Truth, on_visit: Callable[[Visit], None] | None) -> Callable[[Visit], None]:
    """What each block of visits is handed to: the truth, then `on_visit`."""

    def begin(visit: Visit) -> None:
        truth.ranking.add(visit)
        if on_visit:
            on_visit(visit)

    return begin


def emit(rows: Rows, truth: Truth) -> Batch:
    """Count rows and hand out their lines."""
    truth.add(rows.facts)
    return Batch(rows.lines.tolist(), truth)


def simulate(plan: Plan, on_visit: Callable[[Visit], None] | None = None) -> Iterator[Batch]:
    """Emit exactly `plan.events` lines, about 20,000 a batch, in order of arrival.

    What is in memory is bounded by the visits that are going on at one time, whatever the length of the run.

    Args:
        plan: what to simulate.
        on_visit: gets each block of visits as it begins, before the lines of it.
    """
    world = build(plan.world)
    end, length = to_microseconds(plan.end), round(plan.days * rhythm.DAY)
    windows = max(1, math.ceil(plan.events / LINES_PER_WINDOW))
    edges = [end - length + length * i // windows for i in range(windows + 1)]
    shares = people_by_place(world)
    weights = [rhythm.visits(shares, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    truth = Truth(world)
    seed = [plan.seed, plan.world, end, length, plan.events]
    stream = Stream(world, seed, plan.shares, observers(truth, on_visit), until=end)
    for i, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        left = plan.events - truth.events
        wanted = left * weights[i] / math.fsum(weights[i:])
        stream.visit(start, stop, stream.some(wanted / stream.lines_per_visit))
        while stop == end and (missing := left - stream.waiting(end)) > 0:
            stream.visit(start, stop, math.ceil(missing / stream.lines_per_visit))
        rows = stream.due(stop)[:left]
        if len(rows):
            yield emit(rows, truth)
