"""Endless traffic that happens now: lines become due as the clock goes on.

Run alone: `recsys-data simulate --rate 50`.
"""

import time
from collections.abc import Callable, Iterator

from recsys_data.errors import UserError
from recsys_data.sources.storefront import rhythm
from recsys_data.sources.storefront.rhythm import DAY, SECOND
from recsys_data.sources.storefront.simulate import Batch, emit, people_by_place
from recsys_data.sources.storefront.stream import SHARES, Shares, Stream
from recsys_data.sources.storefront.truth import Truth
from recsys_data.sources.storefront.world import build

BEFORE = 30 * 60 * SECOND  # visits that began this long ago may still go on when the run starts
STEP = SECOND
MINUTE = 60 * SECOND
CATCH_UP = MINUTE  # after a longer pause (a laptop asleep) the traffic of the pause is not made up for


def live(
    rate: float,
    seed: int = 0,
    *,
    daily_rhythm: bool = False,
    shares: Shares = SHARES,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    tick: float = 0.2,
    world: int = 2026,
) -> Iterator[Batch]:
    """Emit `rate` lines per second on average, for ever, as they become due; sleeps between batches.

    Args:
        rate: lines per second.
        seed: another seed, or another start, is other traffic in the same shop.
        daily_rhythm: let the rate follow the visitors' local hours; `rate` is then the mean over a week.
        shares: shares of faults and late events.
        clock: seconds since 1970.
        sleep: waits for some seconds.
        tick: seconds from one batch to the next.
        world: seed of the shop.

    Raises:
        UserError: `rate` is not a positive number, or `seed` is negative.
    """
    if not 0 < rate < 1e6 or seed < 0:
        raise UserError(f"Cannot emit {rate} events a second with seed {seed}: give a rate above 0, a seed from 0.")
    shop = build(world)
    now = round(clock() * SECOND)
    stream = Stream(shop, [seed, world, now], shares)
    truth = Truth(shop)
    places = people_by_place(shop)
    week = rhythm.visits(places, now, now + 7 * DAY) / (7 * DAY)

    def visits(start: int, end: int) -> int:
        busy = rhythm.visits(places, start, end) / (end - start) / week if daily_rhythm else 1.0
        return stream.some(rate * busy * (end - start) / SECOND / stream.lines_per_visit)

    ready = now - CATCH_UP - SECOND
    while True:
        now = round(clock() * SECOND)
        if ready < now - CATCH_UP:
            for start in range(now - BEFORE, now, MINUTE):
                stream.visit(start, start + MINUTE, visits(start, start + MINUTE), since=now)
            ready = now
        while ready <= now:
            stream.visit(ready, ready + STEP, visits(ready, ready + STEP))
            ready += STEP
        rows = stream.due(now)
        if len(rows):
            yield emit(rows, truth)
        sleep(max(0.0, tick - (clock() - now / SECOND)))
