"""An id for every request: the client's own if it is sane, else a new one; in the answer and in every log line."""

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_data.logs import bound

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
