"""Endless traffic that happens now: lines become due as the clock goes on.

Run alone: `recsys-data simulate --rate 50`.
"""

import time
from collections.abc import Callable, Iterator

from recsys_data.errors import UserError
from recsys_data.simulator import rhythm
from recsys_data.simulator.rhythm import DAY, SECOND
from recsys_data.simulator.simulate import Batch, emit, observers, people_by_place
from recsys_data.simulator.traffic.behaviour import Visit
from recsys_data.simulator.traffic.rows import Rows
from recsys_data.simulator.traffic.stream import SHARES, Shares, Stream
from recsys_data.simulator.truth import Truth
from recsys_data.simulator.world import build

BEFORE = 30 * 60 * SECOND  # visits that began this long ago may still go on when the traffic begins
MINUTE = 60 * SECOND
STEP = SECOND
TICK = 0.2  # seconds from one batch to the next
PAUSE = 60.0  # seconds; what a longer pause (a laptop asleep) would have brought is left out
FASTEST = 5000.0  # lines per second; well below what one core can write


class _Traffic:
    """The shop's lines as time goes on; times are microseconds."""

    def __init__(self, rate: float, daily_rhythm: bool, stream: Stream, now: int) -> None:
        self.rate, self.daily_rhythm, self.stream = rate, daily_rhythm, stream
        self.places = people_by_place(stream.world)
        self.mean = rhythm.visits(self.places, now, now + 7 * DAY) / (7 * DAY)
        self.begin(now)

    def _visits(self, start: int, end: int, since: int = 0) -> None:
        busy = rhythm.visits(self.places, start, end) / (end - start) / self.mean if self.daily_rhythm else 1.0
        lines = self.rate * busy * (end - start) / SECOND
        self.stream.visit(start, end, self.stream.some(lines / self.stream.lines_per_visit), since)

    def begin(self, now: int) -> None:
        """Start in the middle: let the visits of the last half hour go on, but drop what they did before."""
        for start in range(now - BEFORE, now, MINUTE):
            self._visits(start, start + MINUTE, since=now)
        self.ready = now

    def until(self, now: int) -> Rows:
        """Take the lines that are due."""
        while self.ready <= now:
            self._visits(self.ready, self.ready + STEP)
            self.ready += STEP
        return self.stream.due(now)


def live(
    rate: float,
    seed: int = 0,
    *,
    daily_rhythm: bool = False,
    shares: Shares = SHARES,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    world: int = 2026,
    on_visit: Callable[[Visit], None] | None = None,
) -> Iterator[Batch]:
    """Emit `rate` lines per second on average, for ever, as they become due; sleeps between batches.

    The first batch takes about a second for every 150 of `rate`, to prepare the visits that are already going on.

    Args:
        rate: lines per second, at most `FASTEST`.
        seed: another seed, or another start, is other traffic in the same shop.
        daily_rhythm: let the rate follow the visitors' local hours; `rate` is then the mean over a week.
        shares: of faults and late events.
        clock: seconds since 1970.
        sleep: waits for some seconds.
        world: seed of the shop.
        on_visit: gets each block of visits as it begins, before the lines of it.

    Raises:
        UserError: `rate` or `seed` is out of range.
    """
    _check(rate, seed)
    shop = build(world)
    start = round(clock() * SECOND)
    truth = Truth(shop)
    stream = Stream(shop, [seed, world, start], shares, observers(truth, on_visit))
    traffic = _Traffic(rate, daily_rhythm, stream, start)
    while True:
        now = clock()
        rows = traffic.until(round(now * SECOND))
        if len(rows):
            yield emit(rows, truth)
        sleep(max(0.0, now + TICK - clock()))
        if clock() - now > PAUSE:
            traffic.begin(round(clock() * SECOND))


def _check(rate: float, seed: int) -> None:
    if not 0 < rate <= FASTEST or seed < 0:
        raise UserError(
            f"Cannot emit {rate} events a second with seed {seed}: the rate must be above 0 and at most {FASTEST:g},"
            " the seed not negative. A planned run (a number of events, no rate) goes as fast as it can."
        )
