"""The log of what was shown: each item of an answer becomes an impression in the event log.

Data flow: `Answer` -> lines -> group commit -> event log, in the background. `event_id` is the recommendation id with
the position, so that an append that is tried again is stored once. If the log cannot keep up, the answer is given
anyway and the loss is counted.
"""

import asyncio
import logging
from datetime import UTC, datetime

import msgspec

from recsys_data.ingestion.streaming.collector.group_commit import Budget, Hold, Writer
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.serving.answers import Answer, Request
from recsys_data.serving.metrics import ServingMetrics

logger = logging.getLogger(__name__)

MAX_BYTES = 32 * 1024 * 1024
RETRY_SECONDS = 1.0
FLUSH_SECONDS = 10.0
SOURCE = "serving"


class ServedLog:
    """Appends impressions.

    Args:
        log: where they go; the caller closes it, after this.
        metrics: count them.
        max_bytes: of impressions that are not durable yet; more are lost.
    """

    def __init__(self, log: EventLog, metrics: ServingMetrics, max_bytes: int = MAX_BYTES) -> None:
        self._metrics = metrics
        self._budget = Budget(max_bytes)
        self._writer = Writer(log, metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        metrics.queue_bytes.set_function(lambda: self._budget.used)
        metrics.waiting.set_function(lambda: self._writer.waiting)

    def add(self, request: Request, answer: Answer) -> None:
        """Log an answer, in the background."""
        if not answer.items:
            return
        lines = impressions(request, answer, datetime.now(UTC))
        hold = Hold(self._budget)
        try:
            hold.take(sum(map(len, lines)))
        except RequestError:
            self._metrics.lost.inc(len(lines))
            return
        task = asyncio.get_running_loop().create_task(self._append(lines, hold))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, lines: list[bytes], hold: Hold) -> None:
        written = False
        try:
            while not written:
                try:
                    await self._writer.append(lines)
                    written = True
                except RequestError:
                    # Nobody else would send them again.
                    if self._closing:
                        break
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._budget.used -= hold.bytes
            if not written:
                self._metrics.lost.inc(len(lines))

    def health(self) -> dict[str, object]:
        """Whether impressions are logged."""
        return {**self._writer.health()[1], "queue_bytes": self._budget.used}

    async def close(self) -> None:
        """Write what waits; what the log does not take soon is lost, and counted."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=FLUSH_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            if late:
                logger.error("The impressions of %d answers could not be logged before the end.", len(late))
        await self._writer.close()


def impressions(request: Request, answer: Answer, at: datetime) -> list[bytes]:
    """The lines of an answer, one for each item.

    A visitor that the request does not name is known by the recommendation alone.
    """
    moment = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    named = request.user_id or request.anonymous_id or request.session_id
    shared = {
        "type": "impression",
        "user_id": request.user_id,
        "anonymous_id": request.anonymous_id or (None if request.user_id else named or answer.recommendation_id),
        "session_id": request.session_id,
        "event_ts": moment,
        "received_at": moment,
        "list_id": answer.scenario,
        "recommendation_id": answer.recommendation_id,
        "model": answer.model,
        "variant": answer.variant,
        "source": SOURCE,
    }
    shared = {name: value for name, value in shared.items() if value is not None}
    return [
        msgspec.json.encode(
            {
                "event_id": f"{answer.recommendation_id}-{item.position}",
                **shared,
                "item_id": item.item_id,
                "position": item.position,
                "score": item.score,
                "propensity": item.propensity,
                "properties": {"reason": item.reason, "fallback": answer.fallback},
            }
        )
        for item in answer.items
    ]
