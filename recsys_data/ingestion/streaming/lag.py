"""How far the lake is behind the event log."""

from typing import NamedTuple

from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.ingestion.streaming.replay import waiting
from recsys_data.storage.tables import Lake


class Lag(NamedTuple):
    """What waits: events in the log or on their way back to it, and bytes in a log whose positions count them."""

    events: int
    bytes: int | None


def unread(log: EventLog, lake: Lake | None) -> dict[int, tuple[int, int]]:
    """By log partition, the positions `[start, end)` that some stream table has not read; without a lake everything."""
    begins, ends = log.begin_offsets(), log.end_offsets()
    positions = positions_of(lake, begins) if lake else begins
    return {partition: (positions[partition], end) for partition, end in ends.items()}


def lag_of(log: EventLog, lake: Lake) -> Lag:
    """What waits now; takes as long as reading it."""
    ranges = unread(log, lake)
    return Lag(
        waiting(lake) + sum(log.count(partition, start) for partition, (start, _) in ranges.items()),
        sum(end - start for start, end in ranges.values()) if log.unit == "bytes" else None,
    )
