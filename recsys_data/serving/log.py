"""The log of what was shown: each item of an answer becomes an impression in the event log.

Data flow: `Answer` -> lines -> group commit -> event log, in the background. `event_id` is the recommendation id with
the position, so that an append that is tried again is stored once. If the log cannot keep up, the answer is given
anyway and the loss is counted.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta

import msgspec

from recsys_data.ingestion.streaming.collector.group_commit import Writer
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.serving.answers import Answer, Request
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.online.served import is_sampled, properties_of
from recsys_data.serving.rankers import Scores

logger = logging.getLogger(__name__)

MAX_BYTES = 32 * 1024 * 1024
# Appends that wait for each other take more of the processor than what they write.
GROUP_SECONDS = 0.05
RETRY_SECONDS = 1.0
FLUSH_SECONDS = 10.0
SOURCE = "serving"
# The property of an impression that says how old the newest event was.
DELAY = "event_delay_s"
# The property that says what else could have been shown, for off-policy evaluation.
SHORTLIST = "shortlist"
MAX_SHORTLIST = 50


class ServedLog:
    """Appends impressions.

    Args:
        log: where they go; the caller closes it, after this.
        metrics: count them.
        max_bytes: of impressions that are not durable yet; more are lost.
    """

    def __init__(self, log: EventLog, metrics: ServingMetrics, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._metrics = metrics
        self._writer = Writer(log, metrics)
        self._waiting: list[bytes] = []
        # Those of the group that is being appended.
        self._group: list[bytes] = []
        self._bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        metrics.queue_bytes.set_function(lambda: self._bytes)
        metrics.waiting.set_function(lambda: len(self._waiting))

    def add(
        self,
        request: Request,
        answer: Answer,
        event_delay: float | None = None,
        scores: Scores | None = None,
        shortlist: Sequence[str] = (),
    ) -> None:
        """Log an answer, in the background; further arguments as for `impressions`."""
        if not answer.items:
            return
        lines = impressions(request, answer, datetime.now(UTC), event_delay, scores, shortlist)
        size = sum(map(len, lines))
        if self._bytes + size > self.max_bytes:
            self._metrics.lost.inc(len(lines))
            return
        self._waiting += lines
        self._bytes += size
        if self._flushing is None or self._flushing.done():
            # It works for many requests, and logs under the id of none.
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), context=Context())

    async def append(self, lines: Sequence[bytes]) -> None:
        """Append events of clients; return when they are durable.

        Raises:
            RequestError: 503, they could not be written.
        """
        await self._writer.append(lines)

    async def _flush(self) -> None:
        while self._waiting:
            await self._pause(GROUP_SECONDS)
            self._group, self._waiting = self._waiting, []
            while not await self._written(self._group):
                # Nobody else would send them again.
                if self._closing.is_set():
                    self._metrics.lost.inc(len(self._group))
                    break
                await self._pause(RETRY_SECONDS)
            self._bytes -= sum(map(len, self._group))
            self._group = []

    async def _written(self, lines: list[bytes]) -> bool:
        try:
            await self._writer.append(lines)
        except RequestError:
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until it is closed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    def health(self) -> dict[str, object]:
        """Whether impressions are logged."""
        return {**self._writer.health()[1], "queue_bytes": self._bytes}

    async def close(self) -> None:
        """Write what waits; what the log does not take soon is lost, and counted."""
        self._closing.set()
        if self._flushing:
            await asyncio.wait((self._flushing,), timeout=FLUSH_SECONDS)
            if late := len(self._group) + len(self._waiting):
                self._flushing.cancel()
                self._metrics.lost.inc(late)
                logger.error("%d impressions could not be logged before the end.", late)
        await self._writer.close()


def impressions(
    request: Request,
    answer: Answer,
    at: datetime,
    event_delay: float | None = None,
    scores: Scores | None = None,
    shortlist: Sequence[str] = (),
) -> list[bytes]:
    """The lines of an answer, one for each item.

    A visitor that the request does not name is known by the recommendation alone.

    Args:
        request: what was asked.
        answer: what was answered.
        at: when.
        event_delay: seconds since the receipt of the newest event that this answer was the first to use; the
            property `event_delay_s` of the first item.
        scores: by which a ranker ordered the items; None: none did.
        shortlist: the items that the order was drawn from, best first, if it was drawn; the property `shortlist` of
            the first item, unless it is long.
    """
    shown_at = at + timedelta(seconds=request.shown_after_seconds)
    named = request.user_id or request.anonymous_id or request.session_id
    shared = {
        "type": "impression",
        "user_id": request.user_id,
        "anonymous_id": request.anonymous_id or (None if request.user_id else named or answer.recommendation_id),
        "session_id": request.session_id,
        "event_ts": _text(shown_at),
        "received_at": _text(at),
        "list_id": answer.scenario,
        "recommendation_id": answer.recommendation_id,
        "model": answer.model,
        "variant": answer.variant,
        "source": SOURCE,
    }
    shared = {name: value for name, value in shared.items() if value is not None}
    features = properties_of(scores, scores is not None and is_sampled(request.user_id))
    once: dict[str, object] = {} if event_delay is None else {DELAY: round(event_delay, 3)}
    if 0 < len(shortlist) <= MAX_SHORTLIST:
        once[SHORTLIST] = list(shortlist)
    return [
        msgspec.json.encode(
            {
                "event_id": f"{answer.recommendation_id}-{item.position}",
                **shared,
                "item_id": item.item_id,
                "position": item.position,
                "score": item.score,
                "propensity": item.propensity,
                "properties": {"reason": item.reason, "fallback": answer.fallback}
                | (once if item is answer.items[0] else {})
                | features(item.item_id),
            }
        )
        for item in answer.items
    ]


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
