"""Answers of HTTP endpoints as JSON: results, refusals with what to do, and failures."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import cast

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from recsys_data.ingestion.streaming.collector.connections import CROWDED
from recsys_data.ingestion.streaming.collector.group_commit import RETRY_SECONDS
from recsys_data.ingestion.streaming.collector.requests import RequestError

logger = logging.getLogger(__name__)

CLIENT_GONE = 499

Handler = Callable[[Request], Awaitable[Response]]


def as_json(status: int, content: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def as_error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error; the Python SDKs read `code` and `message`, and without them one retries what is final."""
    code = HTTPStatus(status).phrase if status != CLIENT_GONE else "Client Closed Request"
    return as_json(status, {"error": reason, "code": code, "message": reason}, headers)


def refused(refusal: RequestError) -> Response:
    """The answer to a request that is refused."""
    wait = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
    return as_error(refusal.status, str(refusal), wait)


def explained(handler: Handler, refuse: Callable[[RequestError], Response] = refused) -> Handler:
    """Answer every failure of `handler` within the app, so that browsers get their CORS headers too.

    Args:
        handler: answers requests.
        refuse: makes an answer of a refusal, in the form that clients of the handler expect.
    """

    async def handle(request: Request) -> Response:
        if request.scope.get(CROWDED):
            crowded = RequestError(503, "Too many connections are open. Send it again later.", RETRY_SECONDS)
            response = refuse(crowded)
            response.headers["Connection"] = "close"
            return response
        try:
            return await handler(request)
        except RequestError as refusal:
            return refuse(refusal)
        except ClientDisconnect:
            return refuse(RequestError(CLIENT_GONE, "The client went away before it had sent its request."))
        except Exception:
            logger.exception("A request failed.")
            return refuse(RequestError(500, "The server failed. Send it again later."))

    return handle


async def refuse_route(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    found = cast(HTTPException, error)
    reason = f"{request.method} {request.url.path}: {found.detail}."
    return as_error(found.status_code, reason, found.headers)
