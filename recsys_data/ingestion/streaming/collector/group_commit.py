"""Group commit: all requests that wait while one append runs are written by the next one.

Data flow: request handlers -> `Writer.append` -> one thread -> `EventLog.append` -> the handlers go on.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context

from recsys_data.errors import RecsysDataError
from recsys_data.ingestion.streaming.collector.middleware import Metrics
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.log import Appended, EventLog
from recsys_data.logs import audit, bound_field

logger = logging.getLogger(__name__)

MAX_QUEUE_BYTES = 64 * 1024 * 1024
RETRY_SECONDS = 1
# A load balancer sends nothing to a collector that says it is ill, and only an append can show that it is
# well again: after this time without an attempt it counts as well.
ILL_SECONDS = 30.0


class Budget:
    """Bytes that may be held at once: bodies being read and lines that are not durable yet."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    @contextmanager
    def hold(self) -> Iterator["Hold"]:
        """What a request takes is given back when it ends, however it ends."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.used -= hold.bytes


class Hold:
    """One request's share of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, count: int) -> None:
        """Take `count` bytes.

        Raises:
            RequestError: 429, nothing is left; the request may come again.
        """
        if self._budget.used + count > self._budget.most:
            raise RequestError(429, "Too much is waiting to be written. Send it again later.", RETRY_SECONDS)
        self._budget.used += count
        self.bytes += count


class Writer:
    """Appends to the log in one thread, a group of requests at a time."""

    def __init__(self, log: EventLog, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collector-writer")
        self._waiting: list[tuple[Sequence[bytes], str | None, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._last_append = time.monotonic()

    @property
    def waiting(self) -> int:
        """Requests that the next append will write."""
        return len(self._waiting)

    async def append(self, lines: Sequence[bytes]) -> None:
        """Return when the lines are durable.

        Raises:
            RequestError: 503, they could not be written; nothing of them counts as accepted.
        """
        if not lines:
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((lines, bound_field("request_id"), done))
        if self._flushing is None or self._flushing.done():
            # It works for many requests, and logs under the id of none.
            self._flushing = loop.create_task(self._flush(), context=Context())
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            lines = [line for lines, _, _ in group for line in lines]
            result = await loop.run_in_executor(self._thread, self._write, lines)
            # The thread would wait for the interpreter after each write of a line, with all requests behind it.
            self._say(result, len(lines), [request_id for _, request_id, _ in group])
            for *_, done in group:
                # A handler whose client is gone may have been cancelled.
                if not done.done():
                    done.set_exception(result) if isinstance(result, RequestError) else done.set_result(None)

    def _say(self, result: Appended | RequestError | None, events: int, request_ids: list[str | None]) -> None:
        """Log which requests an append was for, and where their lines are."""
        if isinstance(result, RequestError):
            audit.error("Not appended.", extra={"events": events, "request_ids": request_ids})
        elif result and audit.isEnabledFor(logging.INFO):
            place = {"log_partition": result.partition, "log_start": result.start, "log_end": result.end}
            audit.info("Appended.", extra={"events": events, **place, "request_ids": request_ids})

    def _write(self, lines: list[bytes]) -> Appended | RequestError | None:
        try:
            with self._metrics.append_seconds.time():
                at = self._log.append(lines)
        except Exception as error:
            logger.error(
                "The event log could not be written: %s",
                error,
                exc_info=not isinstance(error, RecsysDataError),
            )
            self._failure = type(error).__name__
            self._metrics.failures.inc()
            return RequestError(503, "The event log cannot be written now. Send it again later.", RETRY_SECONDS)
        finally:
            self._last_append = time.monotonic()
        self._failure = None
        self._metrics.events.inc(len(lines))
        self._metrics.bytes.inc(sum(map(len, lines)) + len(lines))
        return at

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the writer works, as of the last append, and the details."""
        idle = time.monotonic() - self._last_append
        ill = self._failure is not None and idle < ILL_SECONDS
        details = {
            "status": "failing" if ill else "ok",
            "last_failure": self._failure,
            "idle_seconds": round(idle, 1),
        }
        return not ill, details

    async def close(self) -> None:
        """Write what waits, then stop the thread."""
        if self._flushing:
            await self._flushing
        self._thread.shutdown()
