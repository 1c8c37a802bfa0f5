"""Days and moments (UTC) as partition keys and as numbers since 1970."""

from datetime import UTC, date, datetime, timedelta

EPOCH = date(1970, 1, 1)
EPOCH_TIME = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROSECONDS_PER_DAY = 86_400_000_000


def date_of(day: int) -> date:
    """A day as counted by Iceberg (days since 1970) -> date."""
    return EPOCH + timedelta(days=day)


def day_key(day: int) -> str:
    """A day as counted by Iceberg (days since 1970) -> partition key, e.g. 2026-01-02."""
    return date_of(day).isoformat()


def day_number(day: date | str) -> int:
    """A date, or a partition key, e.g. 2026-01-02 -> days since 1970."""
    return ((date.fromisoformat(day) if isinstance(day, str) else day) - EPOCH).days


def from_microseconds(microseconds: int) -> datetime:
    """Microseconds since 1970 -> moment."""
    return EPOCH_TIME + microseconds * MICROSECOND


def to_microseconds(moment: datetime) -> int:
    """Moment -> microseconds since 1970."""
    return (moment - EPOCH_TIME) // MICROSECOND
