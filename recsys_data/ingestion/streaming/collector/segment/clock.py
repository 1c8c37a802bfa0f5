"""Event time, corrected for a client's wrong clock.

As the Segment specification has it: a request is sent and received at almost the same moment, so what lies
between the two readings is how wrong the client's clock is:
event_ts = received_at - (sent_at - timestamp).
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


def parse(value: object) -> datetime | None:
    """An RFC 3339 time with an offset, or None for anything else."""
    try:
        return msgspec.convert(value, Instant)
    except (msgspec.ValidationError, UnicodeError):  # the latter: half of a surrogate pair
        return None


def to_text(moment: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond: what ingestion reads fastest.

    >>> to_text(datetime(2026, 1, 2, 3, 4, 5, 678999, tzinfo=UTC))
    '2026-01-02T03:04:05.678Z'
    """
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


@dataclass(frozen=True, slots=True)
class Arrival:
    """When and from whom a request came.

    Attributes:
        received_at: the collector's own clock.
        sent_at: the client's clock when it sent the request, as it was sent; None if it did not say.
        corrects: whether event times are corrected; a historical import is not.
        user_agent: of the request, for messages that do not carry their own.
        ip: of the peer, likewise; None on loopback.
    """

    received_at: datetime
    sent_at: object = None
    corrects: bool = True
    user_agent: str | None = None
    ip: str | None = None
    received: str = field(init=False)
    skew: timedelta | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "received", to_text(self.received_at))
        object.__setattr__(self, "skew", self.skew_of(self.sent_at))

    def skew_of(self, sent_at: object) -> timedelta | None:
        """How much later the collector's clock is than the client's; None where that is not known."""
        moment = parse(sent_at) if self.corrects and sent_at is not None else None
        return None if moment is None else self.received_at - moment


def set_times(event: MutableMapping[str, Any], client_time: object, skew: timedelta | None) -> None:
    """Set `event_ts`, and `client_event_ts` where the client's time was corrected.

    A time that cannot be read is passed on as it is: ingestion says what is wrong with it.
    """
    event["event_ts"] = client_time
    moment = parse(client_time) if skew is not None else None
    if skew is None or moment is None:
        return
    try:
        event["event_ts"] = to_text(moment + skew)
    except OverflowError:  # corrected, it would fall outside the years 1 to 9999
        return
    event["client_event_ts"] = client_time
