"""What all dialects need of the server: bodies within limits, events into the log, rows into the pushed state.

The parts are those of the collector: keys, limits, group commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from recsys_data.errors import Transient
from recsys_data.ingestion.batch.pushed import PushedRows
from recsys_data.ingestion.streaming.collector.bodies import NOT_JSON
from recsys_data.ingestion.streaming.collector.group_commit import MAX_QUEUE_BYTES, RETRY_SECONDS, Budget
from recsys_data.ingestion.streaming.collector.requests import RequestError, read_body
from recsys_data.ingestion.streaming.collector.responses import Handler
from recsys_data.serving.dialects.declared import Dialects
from recsys_data.serving.recommender import LakeRecommender
from recsys_data.settings import Settings

ITEMS, USERS = "item_catalog", "user_profiles"
KEYS = {ITEMS: "item_id", USERS: "user_id"}

WithBody = Callable[[HttpRequest, bytes], Awaitable[Response]]


@dataclass(frozen=True)
class Intake:
    """What dialects share.

    Attributes:
        recommender: answers.
        settings: say keys and limits.
        dialects: say what names mean.
        pushed: keeps rows of users and items.
        takes: the datasets whose snapshots read pushed rows.
    """

    recommender: LakeRecommender
    settings: Settings
    dialects: Dialects
    pushed: PushedRows
    takes: frozenset[str]
    budget: Budget = field(default_factory=lambda: Budget(MAX_QUEUE_BYTES))

    def with_body(self, handler: WithBody) -> Handler:
        """Read the body of a request, within limits, before `handler` answers it."""

        async def handle(http: HttpRequest) -> Response:
            with self.budget.hold() as hold:
                body = await read_body(http, self.settings.max_request_bytes, hold.take)
                return await handler(http, body)

        return handle

    async def append(self, lines: list[bytes]) -> None:
        """Append events to the log; they are durable when this returns.

        Raises:
            RequestError: 503, they could not be written.
        """
        await self.recommender.log.append(lines)

    async def push(self, dataset: str, rows: Mapping[str, dict[str, Any] | None], *, merge: bool = False) -> None:
        """Keep rows of users or items; they are durable when this returns. See `PushedRows.put`.

        Raises:
            RequestError: 501, the dataset is read from elsewhere; 503, they could not be written.
        """
        if dataset not in self.takes:
            raise RequestError(
                501,
                f"The contract of {dataset} names other servers than the landing folder, so that what is pushed would "
                "not be read. Deliver it there.",
            )
        try:
            await asyncio.to_thread(self.pushed.put, dataset, rows, merge=merge)
            if dataset == ITEMS:
                # What was deleted is not shown from now on, before the next snapshot knows it.
                await asyncio.to_thread(self.recommender.catalogue.withdraw)
        except Transient as error:
            raise RequestError(503, str(error), RETRY_SECONDS) from None


def decoded(body: bytes) -> Any:
    """The JSON value in a body.

    Raises:
        ValueError: it is not JSON; says where.
    """
    try:
        return msgspec.json.decode(body)
    except NOT_JSON as error:
        raise ValueError(str(error)) from None
