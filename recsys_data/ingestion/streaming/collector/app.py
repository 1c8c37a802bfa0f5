"""The collector as an ASGI app: which path takes what, and how it is answered.

The paths are those of the Segment HTTP tracking API, which RudderStack shares, with the browser's short
forms; `/v1/events` takes native events. SDKs send again after 408, 429 and 5xx, never after another 4xx.
"""

import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recsys_data.contracts.load import load_contracts
from recsys_data.ingestion.streaming.collector import bodies
from recsys_data.ingestion.streaming.collector import event_lines as lines
from recsys_data.ingestion.streaming.collector.bodies import Upload
from recsys_data.ingestion.streaming.collector.group_commit import MAX_QUEUE_BYTES, Budget, Hold, Writer
from recsys_data.ingestion.streaming.collector.middleware import CountRequests, Metrics, RequestIds
from recsys_data.ingestion.streaming.collector.parser import Parser
from recsys_data.ingestion.streaming.collector.requests import (
    basic_key,
    check_body_key,
    check_key,
    read_body,
)
from recsys_data.ingestion.streaming.collector.responses import Handler, as_json, explained, refuse_route
from recsys_data.ingestion.streaming.collector.segment import messages as segment
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.settings import Settings

logger = logging.getLogger(__name__)

EVENTS_PATH = "/v1/events"
PREFLIGHT_SECONDS = 24 * 3600


def create_app(log: EventLog, settings: Settings, types: EventTypes | None = None) -> Starlette:
    """The app over an event log that the caller opens and closes.

    Args:
        log: where lines go.
        settings: of them it takes `keys`, `max_request_bytes` and, without `types`, `contracts`.
        types: the native event types.

    Raises:
        ContractError: a contract makes no sense.
    """
    types = types or EventTypes.of(load_contracts(*settings.contract_dirs)["interactions"])
    return Collector(log, settings, types).app


class Collector:
    """The endpoints, with what they share."""

    def __init__(self, log: EventLog, settings: Settings, types: EventTypes) -> None:
        self._settings = settings
        self._types = types
        self._budget = Budget(MAX_QUEUE_BYTES)
        # Of that, what may be held for requests that have not shown a key yet.
        self._strangers = Budget(max(MAX_QUEUE_BYTES // 4, settings.max_request_bytes))
        self._parser = Parser()
        self._max_items = settings.max_request_bytes // bodies.LEAST_ITEM_BYTES
        self._metrics = Metrics()
        self._writer = Writer(log, self._metrics)
        self._metrics.queue_bytes.set_function(lambda: self._budget.used)
        self._metrics.waiting.set_function(lambda: self._writer.waiting)
        routes = [Route("/health", self.health), Route("/metrics", self.metrics)]
        routes += [Route(path, explained(handler), methods=["POST"]) for path, handler in self._posts().items()]
        paths = frozenset(route.path for route in routes)
        self.app = Starlette(
            routes=routes,
            middleware=[
                Middleware(RequestIds),
                Middleware(CountRequests, metrics=self._metrics, paths=paths),
                Middleware(
                    CORSMiddleware,
                    allow_origins=["*"],
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                    max_age=PREFLIGHT_SECONDS,
                ),
            ],
            exception_handlers={HTTPException: refuse_route},
            lifespan=self._lifespan,
        )

    def _posts(self) -> dict[str, Handler]:
        posts: dict[str, Handler] = {
            EVENTS_PATH: self.events,
            "/v1/import": partial(self.batch, corrects=False),
        }
        posts |= {f"/v1/{name}": self.batch for name in ("batch", "b")}
        for call in segment.CALLS:
            posts |= {f"/v1/{name}": partial(self.message, call) for name in (call, call[0])}
        return posts

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self._writer.close()
        self._parser.close()

    async def message(self, call: str, request: Request) -> Response:
        """A single Segment message, of the kind that the path says."""
        await self._accept(request, bodies.read_message, partial(lines.segment_lines, call=call, types=self._types))
        return as_json(200, {"success": True})

    async def batch(self, request: Request, corrects: bool = True) -> Response:
        """A Segment batch; a historical import keeps its times and says nothing about who sent it."""
        await self._accept(
            request, bodies.read_batch, partial(lines.segment_lines, call=None, types=self._types), corrects
        )
        return as_json(200, {"success": True})

    async def events(self, request: Request) -> Response:
        """Native events."""
        count = await self._accept(request, bodies.read_events, lines.native_lines)
        return as_json(200, {"accepted": count})

    async def _accept(
        self,
        request: Request,
        read: Callable[[bytes, int], Upload],
        to_lines: Callable[[Upload, Arrival], list[bytes]],
        corrects: bool = True,
    ) -> int:
        """Read, check, map and append; returns how many messages or events there were."""
        received_at = datetime.now(UTC)
        key = basic_key(request)
        if key is not None:
            check_key(key, self._settings.keys)
        agent, ip = (request.headers.get("user-agent"), peer_address(request)) if corrects else (None, None)

        def parse(body: bytes) -> tuple[int, list[bytes]]:
            upload = read(body, self._max_items)
            if key is None:
                check_key(upload.write_key, self._settings.keys)
            found = to_lines(upload, Arrival(received_at, upload.sent_at, corrects, agent, ip))
            # What was parsed is many times as large as the lines, which alone are counted and have to wait.
            return len(upload.items), found

        with self._budget.hold() as hold:
            body = await self._read(request, hold, known=key is not None or not self._settings.keys)
            count, found = await self._parser.run(len(body), partial(parse, body))
            hold.take(sum(map(len, found)))
            del body
            await self._writer.append(found)
        return count

    async def _read(self, request: Request, hold: Hold, known: bool) -> bytes:
        """The body; one that has to show a key itself is searched for it before it is parsed."""
        most = self._settings.max_request_bytes
        if known:
            return await read_body(request, most, hold.take)
        with self._strangers.hold() as share:

            def take(count: int) -> None:
                share.take(count)
                hold.take(count)

            body = await read_body(request, most, take)
        check_body_key(body, self._settings.keys)
        return body

    async def health(self, _: Request) -> Response:
        """200 while the log can be written."""
        well, details = self._writer.health()
        return as_json(200 if well else 503, {**details, "queue_bytes": self._budget.used})

    async def metrics(self, _: Request) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)


def peer_address(request: Request) -> str | None:
    """The peer's IP address; none for a peer on this machine, whose address says nothing about a user."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return None
    return None if address.is_loopback else str(address)
