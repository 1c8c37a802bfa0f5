"""The paths of Amazon Personalize's runtime and events APIs.

They are those of its service models; what is behind them is `runtime.py` and `intake.py`.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.streaming.collector.responses import as_json, explained
from recsys_data.serving.dialects.intake import ITEMS, USERS, Intake
from recsys_data.serving.dialects.personalize.errors import AwsError, refused
from recsys_data.serving.dialects.personalize.intake import event_lines, item_rows, user_rows
from recsys_data.serving.dialects.personalize.runtime import get_personalized_ranking, get_recommendations
from recsys_data.serving.dialects.personalize.shapes import (
    GetPersonalizedRanking,
    GetRecommendations,
    PutEvents,
    PutItems,
    PutUsers,
    decode_as,
)
from recsys_data.serving.dialects.personalize.signature import check_signature

NOT_SUPPORTED = ("/action-recommendations", "/actions", "/action-interactions")

Answers = Callable[[bytes], Awaitable[Response]]


def personalize_routes(intake: Intake, contracts: Mapping[str, Contract]) -> list[Route]:
    """The routes of the dialect."""
    recommender, dialects = intake.recommender, intake.dialects

    async def recommendations(body: bytes) -> Response:
        return as_json(200, await get_recommendations(decode_as(body, GetRecommendations), recommender, dialects))

    async def ranking(body: bytes) -> Response:
        return as_json(
            200, await get_personalized_ranking(decode_as(body, GetPersonalizedRanking), recommender, dialects)
        )

    async def events(body: bytes) -> Response:
        await intake.append(event_lines(decode_as(body, PutEvents), dialects))
        return Response()

    async def items(body: bytes) -> Response:
        await intake.push(ITEMS, item_rows(decode_as(body, PutItems), contracts[ITEMS]))
        return Response()

    async def users(body: bytes) -> Response:
        await intake.push(USERS, user_rows(decode_as(body, PutUsers), contracts[USERS]))
        return Response()

    async def unknown(_: bytes) -> Response:
        raise AwsError(404, "UnknownOperationException", "Actions are not supported here.")

    answers: dict[str, Answers] = {
        "/recommendations": recommendations,
        "/personalize-ranking": ranking,
        "/events": events,
        "/items": items,
        "/users": users,
    }
    answers |= dict.fromkeys(NOT_SUPPORTED, unknown)
    return [
        Route(path, explained(intake.with_body(_checked(intake, one)), refused), methods=["POST"])
        for path, one in answers.items()
    ]


def _checked(intake: Intake, answers: Answers) -> Callable[[HttpRequest, bytes], Awaitable[Response]]:
    async def handle(http: HttpRequest, body: bytes) -> Response:
        check_signature(http, body, intake.settings.keys, intake.settings.secrets_of_keys)
        return await answers(body)

    return handle
