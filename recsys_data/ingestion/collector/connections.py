"""HTTP connections that do not wait for ever for a request to begin.

uvicorn limits idle time after an answer, but not how long or how big the head of a request may be: a client
that sends a header byte now and then would hold its connection, and one that never ends would fill memory.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 15.0
MAX_HEAD_BYTES = 64 * 1024
# The rest of a body that was answered before it was read, e.g. with 404, comes before the next head.
MAX_UNREAD_BYTES = 8 * 1024 * 1024


class Connection(AutoHTTPProtocol):
    """Closes when a request's head has not arrived after `HEAD_SECONDS` or `MAX_HEAD_BYTES`."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any  # the request that is being answered, or was last; None before the first
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
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
