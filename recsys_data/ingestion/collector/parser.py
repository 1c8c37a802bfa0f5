"""Large bodies are parsed in one thread, beside the event loop, the smallest that waits first.

A megabyte of messages takes up to a second to parse. On the event loop, all other requests would wait for that long; in
several threads they would compete with each other for the interpreter. Whoever sends little is served first.
"""

import asyncio
import heapq
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count
from typing import TypeVar

T = TypeVar("T")

# Worth less than about 25 ms, however many messages are in it; most requests of browsers are smaller.
SMALL_BYTES = 8 * 1024


class Parser:
    """Runs functions over bodies."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collector-parser")
        self._busy = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def run(self, size: int, parse: Callable[[], T]) -> T:
        """The result of `parse`, which works on `size` bytes."""
        if size <= SMALL_BYTES:
            return parse()
        loop = asyncio.get_running_loop()
        if self._busy:
            turn: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._waiting, (size, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._next()
                raise
        self._busy = True
        try:
            return await loop.run_in_executor(self._thread, copy_context().run, parse)
        finally:
            self._next()

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
