"""When people visit: a daily rhythm by the local hour and a weekday effect, in IANA time zones.

Offsets are looked up once per time zone and hour of the window, so that days with a clock change are right.
"""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.catalogue import PLACES

SECOND = 1_000_000  # times are whole microseconds since 1970 (UTC)
HOUR = 3600 * SECOND
DAY = 24 * HOUR

# Relative visits by local hour: asleep at four, a lunch break, the sofa at half past eight.
HOURS = np.array(
    [0.30, 0.18, 0.11, 0.08, 0.08, 0.14, 0.32, 0.55, 0.70, 0.76, 0.80, 0.86]
    + [1.00, 0.94, 0.82, 0.80, 0.84, 0.95, 1.10, 1.32, 1.50, 1.42, 1.05, 0.60]
)
WEEKDAYS = np.array([1.0, 0.96, 0.95, 0.98, 0.94, 1.12, 1.25])  # Monday first
PEAK = float(HOURS.max() * WEEKDAYS.max())

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=100_000)
def _offset(timezone: str, hour: int) -> int:
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    local = moment.astimezone(ZoneInfo(timezone))
    return round((local.replace(tzinfo=UTC) - moment).total_seconds()) * SECOND


def utc_offsets(place: Ints, times: Ints) -> Ints:
    """The UTC offset in force at each place and time, in microseconds; arrays of one shape (n,)."""
    key = times // HOUR * len(PLACES) + place
    seen, inverse = np.unique(key, return_inverse=True)
    found = [_offset(PLACES[k % len(PLACES)].timezone, k // len(PLACES)) for k in seen.tolist()]
    return np.array(found, np.int64)[inverse]


def local_hour_and_weekday(local: Ints) -> tuple[Ints, Ints]:
    """Hour of the day, and weekday with Monday as 0, of local times in microseconds."""
    return local // HOUR % 24, (local // DAY + 3) % 7


def intensity(place: Ints, times: Ints) -> Floats:
    """Relative visits at each place and time, at most `PEAK`; arrays of one shape (n,)."""
    hour, weekday = local_hour_and_weekday(times + utc_offsets(place, times))
    return HOURS[hour] * WEEKDAYS[weekday]


def visits(shares: Floats, start: int, end: int) -> float:
    """Expected relative visits of a window, when `shares` of the people live in each of `PLACES`."""
    steps = max(1, round((end - start) / HOUR))
    width = (end - start) / steps
    middles = (start + width * (np.arange(steps) + 0.5)).astype(np.int64)
    place = np.repeat(np.arange(len(PLACES)), steps)
    return float((intensity(place, np.tile(middles, len(PLACES))) * np.repeat(shares, steps)).sum() * width)
