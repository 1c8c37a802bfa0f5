"""Metarank's JSON API: `/rank/MODEL`, `/recommend/MODEL` and `/feedback`.

The `id` of a ranking is the id of the recommendation, so that interactions whose `ranking` is that id join what was
shown. As in Metarank (http4s without an error handler), a request that cannot be read, and a model that there is not,
are answered 500 without a body; the header `X-Error` says why.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from recsys_data.contracts.model import Contract
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.collector.bodies import NOT_JSON
from recsys_data.ingestion.streaming.collector.requests import RequestError, basic_key, check_key
from recsys_data.ingestion.streaming.collector.responses import as_json, explained
from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.serving.answers import MAX_IDS, MAX_ITEMS, Answer, Id, RecommendationId, Request
from recsys_data.serving.dialects.client_events import event_line, impression_lines, moment_of, moment_of_epoch
from recsys_data.serving.dialects.client_rows import to_row
from recsys_data.serving.dialects.intake import ITEMS, USERS, Intake, WithBody
from recsys_data.serving.models import Remembered

SOURCE = "metarank"
MILLISECOND = 0.001
# So many rankings are remembered, of which the answers are logged already.
REMEMBERED = 100_000
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# What a server of Metarank refuses too, or what a client may send again.
PLAIN = frozenset({401, 404, 408, 413, 415, 429, 499, 501, 503})


class Named(msgspec.Struct, frozen=True):
    """A field of an event."""

    name: str
    value: bool | int | float | str | list[str | int | float]


class Listed(msgspec.Struct, frozen=True):
    """An item of a ranking; its fields and labels are for Metarank's own models."""

    id: Id


class Ranking(msgspec.Struct, frozen=True):
    """The body of `/rank`: a ranking, which need not say that it is one."""

    id: RecommendationId
    timestamp: int | str
    items: Annotated[tuple[Listed, ...], msgspec.Meta(min_length=1, max_length=MAX_IDS)]
    user: Id | None = None
    session: Id | None = None
    fields: tuple[Named, ...] = ()


class RankingEvent(Ranking, frozen=True, tag_field="event", tag="ranking"):
    """Items that were shown."""


class InteractionEvent(msgspec.Struct, frozen=True, tag_field="event", tag="interaction"):
    """What a visitor did to an item."""

    id: Id
    item: Id
    timestamp: int | str
    type: Id
    ranking: RecommendationId | None = None
    user: Id | None = None
    session: Id | None = None
    fields: tuple[Named, ...] = ()


class ItemEvent(msgspec.Struct, frozen=True, tag_field="event", tag="item"):
    """What is known of an item from now on; what is not named stays."""

    id: Id
    item: Id
    timestamp: int | str
    fields: tuple[Named, ...] = ()


class UserEvent(msgspec.Struct, frozen=True, tag_field="event", tag="user"):
    """What is known of a user from now on; what is not named stays."""

    id: Id
    user: Id
    timestamp: int | str
    fields: tuple[Named, ...] = ()


class Recommend(msgspec.Struct, frozen=True):
    """The body of `/recommend`."""

    count: Annotated[int, msgspec.Meta(ge=1)]
    user: Id | None = None
    items: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_IDS)] = ()


Event = RankingEvent | InteractionEvent | ItemEvent | UserEvent

_one = msgspec.json.Decoder(Event)
_many = msgspec.json.Decoder(list[Event])


def metarank_routes(intake: Intake, contracts: Mapping[str, Contract]) -> list[Route]:
    """The routes of the dialect."""
    metarank = Metarank(intake, contracts)
    endpoints: dict[str, WithBody] = {
        "/rank/{model}": metarank.rank,
        "/recommend/{model}": metarank.recommend,
        "/feedback": metarank.feedback,
        "/flush": metarank.flush,
    }
    return [
        Route(path, explained(intake.with_body(_posted(intake, one)), refused), methods=METHODS)
        for path, one in endpoints.items()
    ]


def refused(refusal: RequestError) -> Response:
    """The answer to a request that is refused."""
    if refusal.status == 404:
        return Response("Not found", 404, media_type="text/plain; charset=utf-8")
    headers = {"X-Error": str(refusal).encode("ascii", "backslashreplace").decode().replace("\n", " ")[:1000]}
    if refusal.retry_after:
        headers["Retry-After"] = str(refusal.retry_after)
    return Response(None, refusal.status if refusal.status in PLAIN else 500, headers)


def _posted(intake: Intake, endpoint: WithBody) -> WithBody:
    async def handle(http: HttpRequest, body: bytes) -> Response:
        check_key(basic_key(http), intake.settings.keys, elsewhere="")
        if http.method != "POST":
            raise RequestError(404, "There is no such endpoint.")
        return await endpoint(http, body)

    return handle


class Metarank:
    """The endpoints.

    Args:
        intake: what dialects share.
        contracts: of users and items.
    """

    def __init__(self, intake: Intake, contracts: Mapping[str, Contract]) -> None:
        self._intake = intake
        self._contracts = contracts
        self._ranked: Remembered[str, bool] = Remembered(REMEMBERED)

    async def rank(self, http: HttpRequest, body: bytes) -> Response:
        """The given items in the best order; those that may not be shown are left out."""
        explain = http.query_params.get("explain")
        if explain not in (None, "true", "false"):
            raise RequestError(404, "explain is neither true nor false.")
        asked = _decode(body, Ranking)
        # Asked now, whatever it says; but Metarank reads it.
        moment_of_timestamp(asked.timestamp)
        items = tuple(dict.fromkeys(one.id for one in asked.items))
        request = Request(
            user_id=asked.user,
            session_id=asked.session,
            n=min(len(items), MAX_ITEMS),
            items=items,
            scenario=self._scenario(http),
            context={one.name: one.value for one in asked.fields if one.name != "category"},
            recommendation_id=asked.id,
        )
        response = await self._answered(self._intake.recommender.rank, request, explain == "true")
        self._ranked.put(asked.id, True)
        return response

    async def recommend(self, http: HttpRequest, body: bytes) -> Response:
        """Items for a user, or similar to some."""
        asked = _decode(body, Recommend)
        request = Request(
            user_id=asked.user,
            n=min(asked.count, MAX_ITEMS),
            items=asked.items,
            scenario=self._scenario(http),
        )
        recommender = self._intake.recommender
        similar = asked.items and asked.user is None
        return await self._answered(recommender.similar if similar else recommender.recommend, request, False)

    async def feedback(self, _: HttpRequest, body: bytes) -> Response:
        """Events: one, a list of them, or one a line. All are accepted, or none."""
        begun = time.perf_counter()
        events = _decode_events(body)
        received_at = datetime.now(UTC)
        lines: list[bytes] = []
        rows: dict[str, dict[str, dict[str, Any]]] = {ITEMS: {}, USERS: {}}
        for event in events:
            at = to_text(moment_of_timestamp(event.timestamp))
            if isinstance(event, RankingEvent) and self._ranked.get(event.id):
                # The impressions of the answer say more than the client can.
                continue
            if isinstance(event, RankingEvent):
                lines += self._shown(event, at, received_at)
            elif isinstance(event, InteractionEvent):
                lines.append(self._done(event, at, received_at))
            else:
                item = isinstance(event, ItemEvent)
                dataset, key = (ITEMS, event.item) if isinstance(event, ItemEvent) else (USERS, event.user)
                row = to_row(self._contracts[ITEMS if item else USERS], {one.name: one.value for one in event.fields})
                rows[dataset][key] = rows[dataset].get(key, {}) | row
        for dataset, found in rows.items():
            if found:
                await self._intake.push(dataset, found, merge=True)
        await self._intake.append(lines)
        return _status(len(events), sum(map(len, rows.values())), begun)

    async def flush(self, _: HttpRequest, body: bytes) -> Response:
        """Nothing waits here for the end of a session."""
        return _status(0, 0, time.perf_counter())

    def _scenario(self, http: HttpRequest) -> str:
        model = http.path_params["model"]
        scenario = self._intake.dialects.scenario_of(model)
        if scenario is None:
            raise RequestError(500, f"model {model} is not configured: there is no scenario of that name.")
        return scenario

    async def _answered(
        self, answers: Callable[[Request], Awaitable[Answer]], request: Request, explain: bool
    ) -> Response:
        begun = time.perf_counter()
        try:
            answer = await answers(request)
        except UserError as error:
            raise RequestError(500, str(error)) from None
        items = []
        for one in answer.items:
            item: dict[str, Any] = {"item": one.item_id, "score": one.score}
            if explain:
                values = {"position": one.position, "propensity": one.propensity, "reason": one.reason}
                item["features"] = [{"name": name, "value": value} for name, value in values.items()]
            items.append(item)
        took = round(1000 * (time.perf_counter() - begun))
        headers = {"X-Recommendation-Id": answer.recommendation_id} if answer.recommendation_id.isascii() else None
        return as_json(200, {"took": took, "items": items}, headers)

    def _shown(self, event: RankingEvent, at: str, received_at: datetime) -> list[bytes]:
        columns = {
            "user_id": event.user,
            "anonymous_id": None if event.user else event.session or event.id,
            "session_id": event.session,
            "event_ts": at,
            "recommendation_id": event.id,
            "source": SOURCE,
        }
        if event.fields:
            columns["properties"] = {one.name: one.value for one in event.fields}
        return impression_lines(event.id, (one.id for one in event.items), columns, received_at)

    def _done(self, event: InteractionEvent, at: str, received_at: datetime) -> bytes:
        columns = {
            "event_id": event.id,
            "user_id": event.user,
            "anonymous_id": None if event.user else event.session or event.ranking or event.id,
            "session_id": event.session,
            "item_id": event.item,
            "event_ts": at,
            "recommendation_id": event.ranking,
            "source": SOURCE,
        }
        properties = {one.name: one.value for one in event.fields}
        return event_line(event.type, columns, properties, self._intake.dialects, received_at)


def moment_of_timestamp(given: int | str) -> datetime:
    """A time: milliseconds since 1970 as a number or text, or ISO 8601.

    >>> moment_of_timestamp("1767323045000") == moment_of_timestamp("2026-01-02T03:04:05Z")
    True

    Raises:
        RequestError: it is something else.
    """
    number = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 16 else given
    moment = moment_of(number) if isinstance(number, str) else moment_of_epoch(number, MILLISECOND)
    if moment is None:
        raise RequestError(500, f"timestamp is {given!r}; expected milliseconds since 1970 or ISO 8601.")
    return moment


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise RequestError(500, f"The body cannot be read: {error}") from None


def _decode_events(body: bytes) -> list[Event]:
    stripped = body.strip()
    try:
        if stripped.startswith(b"["):
            return _many.decode(stripped)
        return [_one.decode(line) for line in _values(stripped)]
    except NOT_JSON as error:
        raise RequestError(500, f"The body cannot be read: {error}") from None


def _values(body: bytes) -> list[bytes]:
    """One JSON value, which may have several lines, or one in each line."""
    try:
        return [bytes(msgspec.json.decode(body, type=msgspec.Raw))]
    except NOT_JSON:
        return [line for line in body.splitlines() if line.strip()]


def _status(accepted: int, updated: int, begun: float) -> Response:
    took = round(1000 * (time.perf_counter() - begun))
    return as_json(200, {"accepted": accepted, "status": "ok", "tookMillis": took, "updated": updated})
