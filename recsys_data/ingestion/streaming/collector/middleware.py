"""Middleware of the collector: counts for Prometheus, and an id for every request.

Each app has a registry of its own, so that two apps can live in a process. The id of a request is the client's own if
it is valid, else a new one; it is in the answer and in every log line.
"""

import os
import re

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_data.logs import bound

OTHER = "other"


class Metrics:
    """The counters of a server that appends to the event log.

    Args:
        server: its name, with which the names of the metrics begin.
    """

    def __init__(self, server: str = "collector") -> None:
        self.registry = one = CollectorRegistry()
        self.requests = Counter(f"{server}_requests", "Requests answered.", ["path", "status"], registry=one)
        self.events = Counter(f"{server}_events_appended", "Lines appended to the log.", registry=one)
        self.bytes = Counter(f"{server}_bytes_appended", "Bytes appended to the log.", registry=one)
        self.failures = Counter(f"{server}_append_failures", "Appends that failed.", registry=one)
        self.append_seconds = Histogram(
            f"{server}_append_seconds", "Seconds until a group of lines was durable.", registry=one
        )
        self.queue_bytes = Gauge(f"{server}_queue_bytes", "Bytes held until they are durable.", registry=one)
        self.waiting = Gauge(f"{server}_waiting_requests", "Requests that wait for the next append.", registry=one)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class CountRequests:
    """Middleware that counts answers by path and status; paths that are not served count as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"] if scope["path"] in self.paths else OTHER

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        return await self.app(scope, receive, count)


HEADER = b"x-request-id"

# What can be copied into a log, a header and a shell without a second thought.
SANE = re.compile(rb"[A-Za-z0-9._:/+=-]{1,64}")

NEW_BYTES = 8


class RequestIds:
    """Middleware that binds `request_id`, and answers with the header `X-Request-Id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = request_id_of(scope)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
            await send(message)

        with bound(request_id=request_id.decode()):
            return await self.app(scope, receive, answer)


def request_id_of(scope: Scope) -> bytes:
    """The id that the client gave, or a new one.

    >>> request_id_of({"headers": [(b"x-request-id", b"abc-1")]})
    b'abc-1'
    >>> len(request_id_of({"headers": [(b"x-request-id", b"no good")]}))
    16
    """
    for name, value in scope["headers"]:
        if name == HEADER and SANE.fullmatch(value):
            return value
    return os.urandom(NEW_BYTES).hex().encode()
