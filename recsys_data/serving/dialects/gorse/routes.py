"""The paths of Gorse's REST API, with and without a slash at their end.

Data flow: path -> the endpoint of its method and form -> recommendations, events or pushed rows.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from recsys_data.ingestion.streaming.collector.requests import RequestError, check_key
from recsys_data.ingestion.streaming.collector.responses import as_json, explained
from recsys_data.serving.dialects.gorse.feedback import Shown, feedback_lines, iterator, page_of, stored_feedback
from recsys_data.serving.dialects.gorse.recommendations import DEFAULT_N, Recommendations
from recsys_data.serving.dialects.gorse.rows import item_of, item_row, user_of, user_row
from recsys_data.serving.dialects.gorse.wire import (
    Feedback,
    Item,
    ItemPatch,
    User,
    UserPatch,
    affected,
    check_id,
    integer_of,
    read_entity,
    refused,
)
from recsys_data.serving.dialects.intake import ITEMS, USERS, Intake
from recsys_data.storage.tables import Lake

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
HEALTHY = {
    "Ready": True,
    "DataStoreError": None,
    "CacheStoreError": None,
    "DataStoreConnected": True,
    "CacheStoreConnected": True,
}
MAX_PAGE = 10_000
KEPT = "The event log keeps what happened, so that feedback cannot be deleted."
NO_NEIGHBORS = "Users are not compared with each other here, so that they have no neighbors."
NO_SEARCH = "Items cannot be searched here."

Endpoint = Callable[..., Awaitable[Response]]


def gorse_routes(intake: Intake, lake: Lake) -> list[Route]:
    """The routes of the dialect."""
    gorse = Gorse(intake, lake)
    return [Route("/api/{rest:path}", explained(intake.with_body(gorse.handle), refused), methods=METHODS)]


class Gorse:
    """The endpoints.

    Args:
        intake: what dialects share.
        lake: feedback is read back from it.
    """

    def __init__(self, intake: Intake, lake: Lake) -> None:
        self._intake = intake
        self._lake = lake
        self._shown = Shown()
        self._reading = asyncio.Semaphore(1)
        self._recommendations = found = Recommendations(intake.recommender, intake.dialects, self._shown)
        # A name in brackets stands for any part of a path, and is handed to the endpoint.
        self._endpoints: list[tuple[str, list[str], Endpoint]] = [
            (method, path.split("/"), endpoint)
            for method, path, endpoint in (
                ("GET", "health/live", self.health),
                ("GET", "health/ready", self.health),
                ("GET", "recommend/{user_id}", found.recommend),
                ("GET", "recommend/{user_id}/{category}", found.recommend),
                ("GET", "popular", found.popular),
                ("GET", "popular/{category}", found.popular),
                ("GET", "latest", found.latest),
                ("GET", "latest/{category}", found.latest),
                ("GET", "item/{item_id}/neighbors", found.neighbors),
                ("GET", "item/{item_id}/neighbors/{category}", found.neighbors),
                ("GET", "user/{user_id}/neighbors", self.user_neighbors),
                ("POST", "session/recommend", self.session),
                ("POST", "session/recommend/{category}", self.session),
                ("POST", "feedback", self.insert_feedback),
                ("PUT", "feedback", self.insert_feedback),
                ("GET", "feedback", self.feedback_page),
                ("GET", "feedback/{feedback_type}", self.feedback_page),
                ("GET", "feedback/{user_id}/{item_id}", self.feedback),
                ("GET", "feedback/{feedback_type}/{user_id}/{item_id}", self.one_feedback),
                ("DELETE", "feedback/{user_id}/{item_id}", self.delete_feedback),
                ("DELETE", "feedback/{feedback_type}/{user_id}/{item_id}", self.delete_feedback),
                ("GET", "user/{user_id}/feedback", self.feedback),
                ("GET", "user/{user_id}/feedback/{feedback_type}", self.feedback),
                ("GET", "item/{item_id}/feedback", self.feedback),
                ("GET", "item/{item_id}/feedback/{feedback_type}", self.feedback),
                ("POST", "item", self.insert_item),
                ("POST", "items", self.insert_items),
                ("GET", "items", self.items),
                ("GET", "item/{item_id}", self.item),
                ("PATCH", "item/{item_id}", self.change_item),
                ("DELETE", "item/{item_id}", self.delete_item),
                ("PUT", "item/{item_id}/category/{category}", self.add_category),
                ("DELETE", "item/{item_id}/category/{category}", self.remove_category),
                ("POST", "user", self.insert_user),
                ("POST", "users", self.insert_users),
                ("GET", "users", self.users),
                ("GET", "user/{user_id}", self.user),
                ("PATCH", "user/{user_id}", self.change_user),
                ("DELETE", "user/{user_id}", self.delete_user),
            )
        ]

    async def handle(self, http: HttpRequest, body: bytes) -> Response:
        """Answer a request by its path.

        Raises:
            RequestError: 401, the key is wrong; 404 and 405, there is no such endpoint.
        """
        # Ids may hold slashes, which only the path as it was sent tells from those of the path.
        raw = http.scope.get("raw_path", http.url.path.encode()).decode("latin-1").partition("?")[0]
        parts = [unquote(part) for part in raw.removeprefix("/api/").rstrip("/").split("/")]
        if parts[0] != "health":
            self._check_key(http)
        forms = [(method, form, one) for method, form, one in self._endpoints if _fits(form, parts)]
        if not forms:
            raise RequestError(404, "404: Page Not Found")
        for method, form, endpoint in forms:
            if method == http.method:
                named = {name[1:-1]: part for name, part in zip(form, parts, strict=True) if name.startswith("{")}
                return await self._call(endpoint, http, body, named)
        raise RequestError(405, "405: Method Not Allowed")

    async def _call(self, endpoint: Endpoint, http: HttpRequest, body: bytes, named: dict[str, str]) -> Response:
        parameters = inspect.signature(endpoint).parameters
        given: dict[str, Any] = {"http": http, "body": body, "category": "", **named}
        return await endpoint(**{name: value for name, value in given.items() if name in parameters})

    def _check_key(self, http: HttpRequest) -> None:
        try:
            check_key(http.headers.get("x-api-key"), self._intake.settings.keys)
        except RequestError:
            raise RequestError(401, "unauthorized") from None

    async def health(self) -> Response:
        """Whether the server answers."""
        return as_json(200, HEALTHY)

    async def session(self, http: HttpRequest, body: bytes, category: str) -> Response:
        """See `Recommendations.session`."""
        return await self._recommendations.session(http, read_entity(http, body, list[Feedback]), category)

    async def user_neighbors(self) -> Response:
        """There are none.

        Raises:
            RequestError: 501, always.
        """
        raise RequestError(501, NO_NEIGHBORS)

    async def insert_feedback(self, http: HttpRequest, body: bytes) -> Response:
        """Append events."""
        given = read_entity(http, body, list[Feedback])
        await self._intake.append(feedback_lines(given, self._intake.dialects, self._shown))
        return affected(len(given))

    async def delete_feedback(self) -> Response:
        """Events stay.

        Raises:
            RequestError: 501, always.
        """
        raise RequestError(501, KEPT)

    async def feedback(
        self, user_id: str | None = None, item_id: str | None = None, feedback_type: str | None = None
    ) -> Response:
        """Feedback of a user, of an item, or of both."""
        return as_json(200, await self._stored(feedback_type, user_id, item_id))

    async def one_feedback(self, feedback_type: str, user_id: str, item_id: str) -> Response:
        """One feedback.

        Raises:
            RequestError: 404, there is none in the lake.
        """
        found = await self._stored(feedback_type, user_id, item_id)
        if not found:
            raise RequestError(404, f"{feedback_type} of {user_id} to {item_id}: feedback not found")
        return as_json(200, found[0])

    async def feedback_page(self, http: HttpRequest, feedback_type: str | None = None) -> Response:
        """A page of all feedback."""
        count, cursor = _page(http)
        skip = page_of(cursor)
        found = await self._stored(feedback_type, None, None, skip, count)
        return as_json(200, iterator(found, skip, count))

    async def _stored(self, *asked: Any) -> list[dict[str, Any]]:
        async with self._reading:
            return await asyncio.to_thread(stored_feedback, self._lake, *asked)

    async def insert_item(self, http: HttpRequest, body: bytes) -> Response:
        """Replace an item."""
        return await self._insert_items([read_entity(http, body, Item)])

    async def insert_items(self, http: HttpRequest, body: bytes) -> Response:
        """Replace items."""
        return await self._insert_items(read_entity(http, body, list[Item]))

    async def _insert_items(self, given: list[Item]) -> Response:
        await self._intake.push(ITEMS, {check_id("ItemId", one.item_id): item_row(one) for one in given})
        return affected(len(given))

    async def item(self, item_id: str) -> Response:
        """An item that was pushed."""
        return as_json(200, item_of(item_id, await self._row(ITEMS, item_id, "item")))

    async def items(self, http: HttpRequest) -> Response:
        """A page of the items that were pushed."""
        if http.query_params.get("q"):
            raise RequestError(501, NO_SEARCH)
        cursor, rows = await self._rows(http, ITEMS)
        return as_json(200, {"Cursor": cursor, "Items": [item_of(key, row) for key, row in rows]})

    async def change_item(self, http: HttpRequest, body: bytes, item_id: str) -> Response:
        """Change what is named of an item."""
        changes = item_row(read_entity(http, body, ItemPatch))
        await self._row(ITEMS, item_id, "item")
        await self._intake.push(ITEMS, {item_id: changes}, merge=True)
        return affected(1)

    async def delete_item(self, item_id: str) -> Response:
        """Delete an item, which is not shown from now on."""
        await self._intake.push(ITEMS, {check_id("item-id", item_id): None})
        return affected(1)

    async def add_category(self, item_id: str, category: str) -> Response:
        """Put an item into a category."""
        path = (await self._row(ITEMS, item_id, "item")).get("category_path") or []
        if category not in path:
            await self._intake.push(ITEMS, {item_id: {"category_path": [*path, category]}}, merge=True)
        return affected(1)

    async def remove_category(self, item_id: str, category: str) -> Response:
        """Take an item out of a category."""
        path = (await self._row(ITEMS, item_id, "item")).get("category_path") or []
        rest = [one for one in path if one != category]
        await self._intake.push(ITEMS, {item_id: {"category_path": rest}}, merge=True)
        return affected(1)

    async def insert_user(self, http: HttpRequest, body: bytes) -> Response:
        """Replace a user."""
        return await self._insert_users([read_entity(http, body, User)])

    async def insert_users(self, http: HttpRequest, body: bytes) -> Response:
        """Replace users."""
        return await self._insert_users(read_entity(http, body, list[User]))

    async def _insert_users(self, given: list[User]) -> Response:
        await self._intake.push(USERS, {check_id("UserId", one.user_id): user_row(one) for one in given})
        return affected(len(given))

    async def user(self, user_id: str) -> Response:
        """A user that was pushed."""
        return as_json(200, user_of(user_id, await self._row(USERS, user_id, "user")))

    async def users(self, http: HttpRequest) -> Response:
        """A page of the users that were pushed."""
        cursor, rows = await self._rows(http, USERS)
        return as_json(200, {"Cursor": cursor, "Users": [user_of(key, row) for key, row in rows]})

    async def change_user(self, http: HttpRequest, body: bytes, user_id: str) -> Response:
        """Change what is named of a user."""
        changes = user_row(read_entity(http, body, UserPatch)).get("attributes", {})
        before = (await self._row(USERS, user_id, "user")).get("attributes", {})
        await self._intake.push(USERS, {user_id: {"attributes": before | changes}}, merge=True)
        return affected(1)

    async def delete_user(self, user_id: str) -> Response:
        """Delete the profile of a user."""
        await self._intake.push(USERS, {check_id("user-id", user_id): None})
        return affected(1)

    async def _row(self, dataset: str, key: str, what: str) -> dict[str, Any]:
        found = await asyncio.to_thread(self._intake.pushed.get, dataset, key)
        if found is None:
            raise RequestError(404, f"{key}: {what} not found")
        return found

    async def _rows(self, http: HttpRequest, dataset: str) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
        count, cursor = _page(http)
        rows = await asyncio.to_thread(self._intake.pushed.page, dataset, cursor, count)
        return (rows[-1][0] if count and len(rows) == count else ""), rows


def _page(http: HttpRequest) -> tuple[int, str]:
    # One of the clients writes it with a capital.
    cursor = http.query_params.get("cursor") or http.query_params.get("Cursor") or ""
    return min(integer_of(http, "n", DEFAULT_N), MAX_PAGE), cursor


def _fits(form: list[str], parts: list[str]) -> bool:
    if len(form) != len(parts):
        return False
    return all(part and (name == part or name.startswith("{")) for name, part in zip(form, parts, strict=True))
