"""Where simulated lines go: the event log, a collector, or a file.

Data flow: lines -> `Target.deliver` (returns when they are safe there) -> `Target.close`.
"""

import base64
import http.client
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

import click

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.received_at import with_received_at
from recsys_data.operations.platform import opened_log
from recsys_data.redaction import redacted, redacted_url, secrets_of
from recsys_data.settings import Settings

GROUP_LINES = 5_000
# A collector also counts the parsed lines against its limit.
SHARE_OF_REQUEST = 0.5
EVENTS_PATH = "/v1/events"
EXAMPLE = "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 30.0
MOST_REFUSED = 1_000
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Target(Protocol):
    """A place for lines."""

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Return when every line is safe there.

        Raises:
            RecsysDataError: they cannot be delivered.
        """
        ...


@contextmanager
def target(to: str, settings: Settings, sleep: Callable[[float], None]) -> Iterator[Target]:
    """The target that `--to` names: `log`, a collector's URL, a file, or `-`.

    Raises:
        UserError: it cannot be used.
    """
    if to == "log":
        with opened_log(settings) as log:
            yield LogTarget(log)
    elif to.startswith(("http://", "https://")):
        collector = CollectorTarget(to, settings, sleep)
        yield collector
        collector.close()
    elif to == "-":
        yield FileTarget(sys.stdout.buffer)
    else:
        with Path(to).open("wb") as file:
            yield FileTarget(file)


class FileTarget:
    """A file of lines, as the clients sent them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def deliver(self, lines: Sequence[bytes]) -> None:
        self._file.write(b"\n".join(lines) + b"\n")
        self._file.flush()


class LogTarget:
    """The event log, with the time of receipt."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def deliver(self, lines: Sequence[bytes]) -> None:
        for start in range(0, len(lines), GROUP_LINES):
            self._log.append(with_received_at(lines[start : start + GROUP_LINES], datetime.now(UTC)))


class CollectorTarget:
    """A collector: requests are repeated until they are accepted, as SDKs do."""

    def __init__(self, url: str, settings: Settings, sleep: Callable[[float], None]) -> None:
        shown = redacted_url(url)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            found = redacted(str(error), secrets_of(url))
            raise UserError(f"{shown}: {found}. Expected the address of a collector, e.g. {EXAMPLE}.") from None
        if not host:
            raise UserError(f"{shown} names no host. Expected the address of a collector, e.g. {EXAMPLE}.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._url = shown
        self._connection = kind(host, port, timeout=TIMEOUT_SECONDS)
        path = parts.path.rstrip("/")
        self._path = path if path.endswith(EVENTS_PATH) else path + EVENTS_PATH
        self._headers = {"Content-Type": "application/x-ndjson"}
        if settings.keys:
            key = base64.b64encode(f"{settings.keys[0]}:".encode()).decode()
            self._headers["Authorization"] = f"Basic {key}"
        self._most_bytes = int(settings.max_request_bytes * SHARE_OF_REQUEST)
        self._sleep = sleep
        self._reached = False
        self._refused: list[bytes] = []

    def deliver(self, lines: Sequence[bytes]) -> None:
        # A request without any JSON is rejected whole, so such lines wait for valid ones to be sent with.
        waiting, self._refused = [*self._refused, *lines], []
        for group in in_groups(waiting, self._most_bytes):
            self._send(group)

    def close(self) -> None:
        """Report what the collector rejected for good."""
        self._connection.close()
        if self._refused:
            click.echo(f"The collector rejected {len(self._refused)} lines that are not JSON.", err=True)

    def _send(self, lines: list[bytes]) -> None:
        status, text = self._insist(b"\n".join(lines))
        if status == 400 and len(self._refused) + len(lines) <= MOST_REFUSED:
            self._refused += lines
        elif not 200 <= status < 300:
            hint = " Set RECSYS_DATA_WRITE_KEYS to its key." if status == 401 else ""
            raise Permanent(f"{self._url} answered {status}: {text}.{hint}")

    def _insist(self, body: bytes) -> tuple[int, str]:
        """The first answer that is final."""
        pause = 0.5
        while True:
            wait = 0.0
            try:
                self._connection.request("POST", self._path, body, self._headers)
                answer = self._connection.getresponse()
                text = answer.read().decode("utf-8", "replace")
                self._reached = True
                if answer.status not in AGAIN:
                    return answer.status, text[:200]
                wait = retry_after(answer.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not self._reached:
                    raise Transient(
                        f"{self._url} cannot be reached: {error}. Start a collector there: recsys-data collect."
                    ) from None
            self._sleep(wait or pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def in_groups(lines: Sequence[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """Lines in order, in groups of at most `most_bytes` with line ends, but at least one line.

    >>> list(in_groups([b"aa", b"bb", b"cccccc", b"d"], 6))
    [[b'aa', b'bb'], [b'cccccc'], [b'd']]
    """
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and size + len(line) + 1 > most_bytes:
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line) + 1
    if group:
        yield group


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, at most `LONGEST_PAUSE_SECONDS`; 0 without one, or for a date.

    >>> retry_after("2"), retry_after(None), retry_after("Sun, 22 Nov 2026 07:28:00 GMT")
    (2.0, 0.0, 0.0)
    """
    return min(float(value), LONGEST_PAUSE_SECONDS) if value and value.isdecimal() else 0.0
