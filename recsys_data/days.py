"""Days as partition keys and as numbers since 1970."""

from datetime import date, timedelta

EPOCH = date(1970, 1, 1)

MICROSECONDS_PER_DAY = 86_400_000_000


def day_key(day: int) -> str:
    """A day as counted by Iceberg (days since 1970) -> partition key, e.g. 2026-01-02."""
    return (EPOCH + timedelta(days=day)).isoformat()


def day_number(key: str) -> int:
    """A partition key, e.g. 2026-01-02 -> days since 1970."""
    return (date.fromisoformat(key) - EPOCH).days
