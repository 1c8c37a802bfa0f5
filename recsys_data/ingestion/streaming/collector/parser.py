"""Large bodies are parsed in one thread, beside the event loop, the smallest that waits first.

A megabyte of messages takes up to a second to parse. On the event loop, all other requests would wait for that long; in
several threads they would compete with each other for the interpreter. Small requests are served first.
"""

import asyncio
import heapq
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count
from typing import TypeVar

from recsys_data.ingestion.streaming.collector.group_commit import RETRY_SECONDS
from recsys_data.ingestion.streaming.collector.requests import RequestError

T = TypeVar("T")

# Worth less than about 25 ms, however many messages are in it; most requests of browsers are smaller.
SMALL_BYTES = 8 * 1024
# SDKs wait for an answer for ten seconds and more.
WAIT_SECONDS = 5.0


class Parser:
    """Runs functions over bodies."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collector-parser")
        self._busy = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def run(self, size: int, parse: Callable[[], T]) -> T:
        """The result of `parse`, which works on `size` bytes.

        Raises:
            RequestError: 429, smaller ones have kept the thread busy for too long.
        """
        if size <= SMALL_BYTES:
            return parse()
        loop = asyncio.get_running_loop()
        if self._busy:
            turn: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._waiting, (size, next(self._numbers), turn))
            await self._wait(turn)
        self._busy = True
        try:
            return await loop.run_in_executor(self._thread, copy_context().run, parse)
        finally:
            self._next()

    async def _wait(self, turn: "asyncio.Future[None]") -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            # It may have come at the same moment, and is passed on.
            if not turn.cancelled():
                self._next()
            if isinstance(error, TimeoutError):
                raise RequestError(
                    429, "Too much is waiting to be parsed. Send it again later.", RETRY_SECONDS
                ) from None
            raise

    def _next(self) -> None:
        """Let the next one begin. The thread stays taken for it, so that nobody comes in between."""
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False

    def close(self) -> None:
        self._thread.shutdown()
