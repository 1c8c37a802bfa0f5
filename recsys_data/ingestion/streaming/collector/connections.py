"""HTTP connections that do not wait for ever for a request to begin, and are not more than can be served.

uvicorn limits idle time after an answer, but not how long or how big the head of a request may be: a client
that sends a header byte now and then would hold its connection, and one that never ends would fill memory.
Too many connections it answers without saying when to come again, and it accepts them until no file can be opened.
"""

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 15.0
MAX_HEAD_BYTES = 64 * 1024
# The rest of a body that was answered before it was read, e.g. with 404, comes before the next head.
MAX_UNREAD_BYTES = 8 * 1024 * 1024
# Connections above the limit that still get an answer; further ones are closed without one.
ANSWERED = 256
# The log and everything else of the process.
OTHER_FILES = 256
# In the scope of a request: its connection came when there were enough.
CROWDED = "recsys_data.crowded"


def make_room(wanted: int) -> int:
    """How many connections fit, at most `wanted`; raises this process's limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + ANSWERED + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return fitting(wanted, needed if soft == resource.RLIM_INFINITY else soft)


def fitting(wanted: int, files: int) -> int:
    """How many connections fit into so many open files.

    >>> fitting(2048, 20_000), fitting(2048, 1024), fitting(2048, 256)
    (2048, 512, 64)
    """
    return min(wanted, max(files - ANSWERED - OTHER_FILES, files // 4))


class Connection(AutoHTTPProtocol):
    """Closes when a request's head has not arrived after `HEAD_SECONDS` or `MAX_HEAD_BYTES`.

    Those that come while there are `limit_concurrency` (of uvicorn's settings) are marked `CROWDED` for the app.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any  # the request that is being answered, or was last; None before the first
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _crowded = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn would refuse every request while too many clients are connected, also of those that were there before.
        self._most, self.limit_concurrency = self.limit_concurrency, None
        app = self.app

        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, CROWDED: self._crowded}, receive, send)

        self.app = refuse

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        above = len(self.connections) - self._most if self._most is not None else 0
        self._crowded = above > 0
        if above > min(ANSWERED, self._most or 0):
            transport.abort()
            return
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            return
        self._head_bytes += len(data)
        unread = self.cycle is not None and self.cycle.more_body
        if self._head_bytes > (MAX_UNREAD_BYTES if unread else MAX_HEAD_BYTES):
            self.transport.close()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
