"""The time of receipt, put into lines that are appended to the log without the collector."""

from collections.abc import Iterable
from datetime import UTC, datetime


def with_received_at(lines: Iterable[bytes], received_at: datetime) -> list[bytes]:
    r"""Put `received_at` into each line that looks like a JSON object and does not mention it.

    Any other line stays byte for byte: what becomes of it is decided, with a reason, when it is read.

    Args:
        lines: log lines, without newlines.
        received_at: when they arrived; must know its time zone.

    Raises:
        ValueError: `received_at` has no time zone.

    >>> with_received_at([b'{"type":"view"}', b'not JSON'], datetime(2026, 1, 2, 3, 4, 5, 678000, UTC))
    [b'{"type":"view","received_at":"2026-01-02T03:04:05.678Z"}', b'not JSON']
    """
    if received_at.tzinfo is None:
        raise ValueError(f"received_at is {received_at.isoformat()}: expected a time with its time zone")
    instant = received_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    alone = b'"received_at":"%sZ"}' % instant.encode()
    after_others = b"," + alone
    return [_stamped(line, alone, after_others) for line in lines]


def _stamped(line: bytes, alone: bytes, after_others: bytes) -> bytes:
    bare = line.strip()
    if b'"received_at"' in bare or bare[:1] != b"{" or bare[-1:] != b"}":
        return line
    body = bare[:-1].rstrip()
    return body + (alone if body == b"{" else after_others)
