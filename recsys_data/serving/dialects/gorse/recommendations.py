"""Gorse's recommendations: what its endpoints ask -> `Request` -> `Answer` -> ids with scores.

Every answer is logged as impressions. `write-back-type` therefore adds none; `write-back-delay` is when they are shown.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.collector.responses import as_json
from recsys_data.serving.answers import MAX_DELAY_SECONDS, MAX_ITEMS, MAX_OFFSET, Answer, Item, Request
from recsys_data.serving.dialects.declared import Dialects
from recsys_data.serving.dialects.gorse.feedback import Shown
from recsys_data.serving.dialects.gorse.wire import Feedback, check_id, duration_of, integer_of
from recsys_data.serving.recommender import ID_BYTES, LakeRecommender

DEFAULT_N = 10
LATEST = "latest"

Answers = Callable[[Request], Awaitable[Answer]]


class Recommendations:
    """The endpoints that recommend.

    Args:
        recommender: answers.
        dialects: say which scenario an endpoint is.
        shown: remembers what was shown to whom.
    """

    def __init__(self, recommender: LakeRecommender, dialects: Dialects, shown: Shown) -> None:
        self._recommender = recommender
        self._dialects = dialects
        self._shown = shown

    async def recommend(self, http: HttpRequest, user_id: str, category: str) -> Response:
        """Items for a user: ids, or with `X-API-Version: 2` ids with scores."""
        check_id("user-id", user_id)
        delay = duration_of(http.query_params.get("write-back-delay", ""))
        if delay > MAX_DELAY_SECONDS:
            raise RequestError(400, f"write-back-delay is {delay:g} seconds; expected at most {MAX_DELAY_SECONDS}.")
        after = delay if http.query_params.get("write-back-type") else 0.0
        asked = self._request(http, "recommend", category, user_id=user_id, shown_after_seconds=after)
        answer = await self._answer(self._recommender.recommend, asked)
        if http.headers.get("x-api-version") == "2":
            return _scores(answer)
        return _with_id(as_json(200, [one.item_id for one in answer.items]), answer)

    async def popular(self, http: HttpRequest, category: str) -> Response:
        """Popular items, without those that the user of `user-id` has met."""
        user_id = http.query_params.get("user-id") or None
        asked = self._request(http, "popular", category, user_id=user_id)
        return _scores(await self._answer(self._recommender.recommend, asked))

    async def latest(self, http: HttpRequest, category: str) -> Response:
        """The newest items of the catalogue, without those that the user of `user-id` has met."""
        asked = self._request(http, "popular", category, user_id=http.query_params.get("user-id") or None)
        catalogue = self._recommender.catalogue.current
        met = set(self._recommender.visitors.recent_items(asked).items) if asked.user_id else set()
        category = asked.context.get("category", "")
        items = [
            item
            for item in catalogue.items
            if catalogue.shows(item) and item not in met and (not category or category in catalogue.categories(item))
        ]
        page = items[asked.offset : asked.offset + (asked.n or 0)]
        answer = Answer(
            recommendation_id=secrets.token_hex(ID_BYTES),
            model=LATEST,
            variant=None,
            scenario=LATEST,
            fallback=False,
            items=tuple(
                Item(item_id=item, position=place, score=1 / place, propensity=1.0, reason="available")
                for place, item in enumerate(page, asked.offset + 1)
            ),
        )
        self._recommender.log.add(asked, answer)
        return _scores(answer)

    async def neighbors(self, http: HttpRequest, item_id: str, category: str) -> Response:
        """Items similar to one."""
        asked = self._request(http, "neighbors", category, items=(check_id("item-id", item_id),))
        return _scores(await self._answer(self._recommender.similar, asked))

    async def session(self, http: HttpRequest, feedback: Sequence[Feedback], category: str) -> Response:
        """Items similar to those of a session's feedback, of which the newest count most."""
        newest_last = sorted(feedback, key=lambda one: one.timestamp)
        items = tuple(dict.fromkeys(check_id("ItemId", one.item_id) for one in newest_last))
        user_id = next((one.user_id for one in reversed(newest_last) if one.user_id), None)
        asked = self._request(http, "session", category, user_id=user_id, items=items)
        if not items:
            return as_json(200, [])
        return _scores(await self._answer(self._recommender.similar, asked))

    def _request(self, http: HttpRequest, endpoint: str, category: str, **more: Any) -> Request:
        categories = http.query_params.getlist("category") or [category]
        if len(categories) > 1:
            raise RequestError(400, f"There are {len(categories)} categories; expected one at most.")
        return Request(
            n=min(integer_of(http, "n", DEFAULT_N), MAX_ITEMS) or None,
            offset=min(integer_of(http, "offset", 0), MAX_OFFSET),
            context={"category": categories[0]} if categories[0] else {},
            scenario=self._dialects.scenario_of(endpoint) or endpoint,
            **more,
        )

    async def _answer(self, answers: Answers, asked: Request) -> Answer:
        try:
            answer = await answers(asked)
        except UserError as error:
            raise RequestError(400, str(error)) from None
        if asked.user_id:
            self._shown.add(asked.user_id, (one.item_id for one in answer.items), answer.recommendation_id)
        return answer


def _scores(answer: Answer) -> Response:
    return _with_id(as_json(200, [{"Id": one.item_id, "Score": one.score} for one in answer.items]), answer)


def _with_id(response: Response, answer: Answer) -> Response:
    response.headers["X-Recommendation-Id"] = answer.recommendation_id
    return response
