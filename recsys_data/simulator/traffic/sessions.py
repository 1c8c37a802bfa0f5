"""Who visits, when, with what and what for: one row per session, drawn from the world and its rhythm.

Goals depend on the segment, modes on the local hour and the weekday; both change what `behaviour` does.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.rhythm import PEAK, intensity, local_hour_and_weekday, utc_offsets
from recsys_data.simulator.world import DEVICES_EACH, World

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

GOALS = ("browse", "buy", "compare", "gift")
MODES = ("solo", "family", "work")
BROWSE, BUY, COMPARE, GIFT = range(4)
SOLO, FAMILY, WORK = range(3)
ANONYMOUS, KNOWN, LOGS_IN = range(3)

# Chances of GOALS by segment (bargain hunter, enthusiast, family, newcomer, occasional).
GOAL_CHANCES = np.array(
    [
        [0.40, 0.20, 0.34, 0.06],
        [0.54, 0.26, 0.15, 0.05],
        [0.38, 0.34, 0.16, 0.12],
        [0.66, 0.12, 0.17, 0.05],
        [0.42, 0.26, 0.14, 0.18],
    ]
)
LATE_DAYS = 30  # a phone that was offline delivers at most this much later


class Device(NamedTuple):
    """What a visitor holds; a browser is empty in the app, an app empty on the web."""

    type: str
    manufacturer: str
    model: str
    os: str
    os_version: str
    browser: str
    app: str
    weight: float


DEVICES = [
    Device("mobile", "Apple", "iPhone15,2", "iOS", "18.1", "", "Storefront", 18),
    Device("mobile", "Apple", "iPhone14,5", "iOS", "17.6", "Safari", "", 14),
    Device("mobile", "Samsung", "SM-S921B", "Android", "15", "", "Storefront", 15),
    Device("mobile", "Google", "Pixel 8", "Android", "15", "Chrome", "", 13),
    Device("desktop", "", "", "Windows", "11", "Edge", "", 9),
    Device("desktop", "", "", "Windows", "10", "Firefox", "", 6),
    Device("desktop", "Apple", "Macintosh", "macOS", "14.6", "Safari", "", 8),
    Device("desktop", "", "", "Linux", "6.8", "Firefox", "", 3),
    Device("tablet", "Apple", "iPad13,18", "iPadOS", "18.1", "Safari", "", 8),
    Device("tablet", "Lenovo", "TB330FU", "Android", "14", "Chrome", "", 3),
    Device("tv", "LG", "OLED55C3", "webOS", "23", "", "Storefront TV", 3),
]
DEVICE_SHARES = np.array([device.weight for device in DEVICES]) / sum(device.weight for device in DEVICES)
DESKTOPS = np.array([i for i, device in enumerate(DEVICES) if device.type == "desktop"])


@dataclass(frozen=True, slots=True)
class Sessions:
    """S visits; every array has shape (S,).

    Attributes:
        person: index into the people of the world.
        start: when it arrives (microseconds, UTC); its events happened `late_days` whole days earlier.
        offset: UTC offset where the visitor is, in microseconds.
        slot: which of the person's anonymous ids (one per device) is used.
        device: index into `DEVICES`.
        goal, mode: index into `GOALS`, `MODES`.
        login: `ANONYMOUS`, `KNOWN` from the start, or `LOGS_IN` on the way.
        late_days: 0 for nearly all.
    """

    person: Ints
    start: Ints
    offset: Ints
    slot: Ints
    device: Ints
    goal: Ints
    mode: Ints
    login: Ints
    late_days: Ints

    def __len__(self) -> int:
        return len(self.person)


def pick(rng: np.random.Generator, chances: Floats) -> Ints:
    """Draw one column for each row of `chances`, shape (n, k), rows summing to 1; returns shape (n,)."""
    edges = np.cumsum(chances, axis=1)[:, :-1]
    return (rng.random((len(chances), 1)) >= edges).sum(axis=1)


def _visits(world: World, rng: np.random.Generator, start: int, end: int, count: int) -> tuple[Ints, Ints]:
    """Draw `count` (person, time) pairs: people by activity, times kept in proportion to the rhythm."""
    edges = np.cumsum(world.people.activity)
    persons, times, found = [], [], 0
    while found < count:
        tries = 64 + int(2.6 * (count - found))
        person = np.minimum(np.searchsorted(edges, rng.random(tries)), len(edges) - 1)
        time = rng.integers(start, end, size=tries)
        kept = rng.random(tries) * PEAK < intensity(world.people.place[person], time)
        persons.append(person[kept])
        times.append(time[kept])
        found += int(kept.sum())
    return np.concatenate(persons)[:count], np.concatenate(times)[:count]


def _modes(rng: np.random.Generator, local: Ints, family: Bools) -> Ints:
    hour, weekday = local_hour_and_weekday(local)
    office = (weekday < 5) & (hour >= 9) & (hour < 17)
    work = np.where(office, 0.34, 0.02)
    together = np.where((weekday >= 5) | (hour >= 17), 0.30, 0.08) * np.where(family, 1.8, 0.7)
    return pick(rng, np.stack([1 - work - together, together, work], axis=1))


def _devices(rng: np.random.Generator, draw: Floats, mode: Ints) -> Ints:
    """The device of each visit: the one that belongs to the person's slot, but a desktop at work."""
    own = np.minimum(np.searchsorted(np.cumsum(DEVICE_SHARES), draw), len(DEVICES) - 1)
    at_work = (mode == WORK) & (rng.random(len(draw)) < 0.75)
    return np.where(at_work, DESKTOPS[(draw * 1000).astype(int) % len(DESKTOPS)], own)


def draw(world: World, rng: np.random.Generator, start: int, end: int, count: int, late: float) -> Sessions:
    """Draw `count` sessions that begin in `[start, end)` (microseconds), ordered by time.

    Args:
        world: the shop and its people.
        rng: source of all randomness.
        start: begin of the window.
        end: end of the window.
        count: number of sessions.
        late: share of sessions that are delivered one to `LATE_DAYS` days after they happened.
    """
    person, time = _visits(world, rng, start, end, count)
    people = world.people
    offset = utc_offsets(people.place[person], time)
    slot = np.minimum((rng.random(count) > 0.75) * 1, DEVICES_EACH - 1)
    mode = _modes(rng, time + offset, people.segment[person] == 2)
    chances = np.where(person[:, None] < world.users, np.array([[0.17, 0.68, 0.15]]), np.array([[1.0, 0.0, 0.0]]))
    sessions = Sessions(
        person=person,
        start=time,
        offset=offset,
        slot=slot,
        device=_devices(rng, people.device_luck[person, slot], mode),
        goal=pick(rng, GOAL_CHANCES[people.segment[person]]),
        mode=mode,
        login=pick(rng, chances),
        late_days=np.where(rng.random(count) < late, rng.integers(1, LATE_DAYS + 1, size=count), 0),
    )
    order = np.argsort(time, kind="stable")
    return replace(sessions, **{name: getattr(sessions, name)[order] for name in Sessions.__slots__})
