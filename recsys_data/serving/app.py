"""Serving as an ASGI app: which path takes what, and how it is answered.

Data flow: HTTP -> `Request` -> `LakeRecommender` -> `Answer` -> HTTP, and impressions to the event log. What it holds
in memory is read from the lake in background threads. Run alone: `recsys-data serve`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from recsys_data.errors import RecsysDataError, Transient, UserError
from recsys_data.ingestion.batch.pushed import PushedRows, takes_pushed
from recsys_data.ingestion.streaming.collector.middleware import CountRequests, RequestIds
from recsys_data.ingestion.streaming.collector.requests import RequestError, basic_key, check_key, read_body
from recsys_data.ingestion.streaming.collector.responses import as_json, explained, refuse_route
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.serving.answers import Answer, Request, Visitors
from recsys_data.serving.candidates import Sources
from recsys_data.serving.catalogue import ITEMS, Catalogue, CatalogueReader
from recsys_data.serving.content import ContentReader
from recsys_data.serving.delays import EventDelays
from recsys_data.serving.dialects.declared import Dialects
from recsys_data.serving.dialects.gorse.routes import gorse_routes
from recsys_data.serving.dialects.intake import KEYS, Intake
from recsys_data.serving.dialects.metarank import metarank_routes
from recsys_data.serving.dialects.personalize.routes import personalize_routes
from recsys_data.serving.features import Features, FeaturesRequest
from recsys_data.serving.items import Items, ids_of
from recsys_data.serving.log import ServedLog
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.models import ModelLoader
from recsys_data.serving.online.lag import OnlineLag, lag_of
from recsys_data.serving.online_store.open import open_online_store
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.serving.openapi import openapi
from recsys_data.serving.rankers import RankerLoader
from recsys_data.serving.recommender import LakeRecommender
from recsys_data.serving.refresher import Refresher
from recsys_data.serving.scenarios.declared import Scenarios
from recsys_data.serving.segments import Segments
from recsys_data.serving.shop.numbers import Numbers, RecentParity
from recsys_data.serving.shop.routes import DemoShop
from recsys_data.serving.shop.shoppers import Shoppers
from recsys_data.serving.visitors import LakeFollower, RecentItems
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
# What a visitor does is to change the next answer.
FOLLOW_SECONDS = 0.2
# The snapshot of a day is taken when the day is over, so that its file need not be the newest all the time.
PUBLISH_SECONDS = 30.0
PACKAGE = "recsys-data"

Answers = Callable[[Request], Awaitable[Answer]]


def create_app(
    lake: Lake, log: EventLog, settings: Settings, visitors: Visitors | None = None, shop: str | None = None
) -> Starlette:
    """The app over a lake and an event log that the caller opens, and closes after it.

    Args:
        lake: what is served from.
        log: gets impressions.
        settings: of them it takes `keys`, `max_request_bytes`, `contracts` and where models are.
        visitors: what is known of visitors, such as an online store; None: memory that follows the lake.
        shop: URL of the collector for the demo shop; None: there is no shop.

    Raises:
        ContractError: a scenario makes no sense.
        UserError: `shop` is not a URL.
    """
    return Serving(lake, log, settings, visitors, shop).app


class Serving:
    """The endpoints, with what they share.

    Attributes:
        recommender: answers.
        refreshers: keep it up to date, once `app` has started.
        app: the ASGI app.
    """

    def __init__(
        self, lake: Lake, log: EventLog, settings: Settings, visitors: Visitors | None = None, shop: str | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics = ServingMetrics()
        scenarios = Scenarios.of(*settings.contract_dirs, contracts=lake.contracts)
        self._store = _opened(settings)
        self._features = Features(lake, self._store)
        self._online_lag: OnlineLag | None = None
        recent = RecentItems()
        self._pushed = pushed = PushedRows(settings)
        self._delays = EventDelays(metrics)
        content = ContentReader(lake) if scenarios.uses_content else None
        segments = Segments(lake, scenarios.segments) if scenarios.segments else None
        self.recommender = LakeRecommender(
            scenarios=scenarios,
            models=ModelLoader(lake, settings, scenarios.models),
            rankers=RankerLoader(lake, settings, self._store, scenarios.rankers),
            catalogue=CatalogueReader(lake, partial(pushed.withdrawn, ITEMS), scenarios.rules),
            visitors=visitors or recent,
            sources=Sources(metrics, content, segments),
            log=ServedLog(log, metrics),
            metrics=metrics,
            delays=self._delays,
        )
        self._visitors = recent
        self._follower = None if visitors else LakeFollower(lake, recent, self._delays)
        failed = partial(_count, metrics)
        self.refreshers = [
            Refresher("catalogue", self.recommender.catalogue.refresh, REFRESH_SECONDS, failed),
            Refresher("models", self.recommender.models.refresh, REFRESH_SECONDS, failed),
        ]
        self.refreshers.append(Refresher("rankers", self.recommender.rankers.refresh, REFRESH_SECONDS, failed))
        if content:
            self.refreshers.append(Refresher("content", content.refresh, REFRESH_SECONDS, failed))
        if segments:
            self.refreshers.append(Refresher("segments", segments.refresh, REFRESH_SECONDS, failed))
        if self._store:
            self.refreshers.append(
                Refresher("online store", partial(self._look, lake, self._store), REFRESH_SECONDS, failed)
            )
        if self._follower:
            self.refreshers.append(Refresher("visitors", self._follower.refresh, FOLLOW_SECONDS, failed))
        self._publisher = Refresher("pushed rows", partial(pushed.publish, KEYS), PUBLISH_SECONDS, failed)
        self.refreshers.append(self._publisher)
        self._openapi = openapi(version(PACKAGE))
        posts = {
            "/v1/recommend": self.recommender.recommend,
            "/v1/rank": self.recommender.rank,
            "/v1/similar": self.recommender.similar,
        }
        self._items = Items(lake)
        gets = {
            "/v1/items": self.items,
            "/health": self.health,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }
        routes = [
            Route(path, explained(partial(self.post, answers)), methods=["POST"]) for path, answers in posts.items()
        ]
        routes += [Route(path, explained(handler)) for path, handler in gets.items()]
        routes.append(Route("/v1/features", explained(self.features), methods=["POST"]))
        routes += self._dialects(lake)
        if shop is not None:
            numbers = Numbers(lake, log, self._delays, self._served, RecentParity(lake).read)
            routes += DemoShop(settings, shop, self.recommender.visitors, Shoppers(lake), numbers).routes()
        paths = frozenset(route.path for route in routes)
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(RequestIds), Middleware(CountRequests, metrics=metrics, paths=paths)],
            exception_handlers={HTTPException: refuse_route},
            lifespan=self._lifespan,
        )

    def _look(self, lake: Lake, store: OnlineStore) -> None:
        """See how far the online store is behind the lake."""
        self._online_lag = found = lag_of(lake, store)
        self._metrics.online_rows_behind.set(found.rows)
        self._metrics.online_seconds_behind.set(found.seconds or 0.0)

    def _dialects(self, lake: Lake) -> list[Route]:
        """The paths of other systems' clients."""
        contracts, settings = lake.contracts, self._settings
        types = EventTypes.of(contracts["interactions"])
        intake = Intake(
            recommender=self.recommender,
            settings=settings,
            dialects=Dialects.of(settings.contract_dirs, self.recommender.scenarios.declared, types),
            pushed=self._pushed,
            takes=frozenset(name for name in KEYS if name in contracts and takes_pushed(contracts[name])),
        )
        return [
            *personalize_routes(intake, contracts),
            *gorse_routes(intake, lake),
            *metarank_routes(intake, contracts),
        ]

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # What visitors met can follow; without the rest there is nothing to answer.
        for one in self.refreshers[:3]:
            await asyncio.to_thread(one.once)
        for one in self.refreshers:
            one.start()
        yield
        await self.recommender.log.close()
        self.recommender.sources.close()
        for one in self.refreshers:
            one.stop()
        # What was pushed since the last time belongs to this day.
        await asyncio.to_thread(self._publisher.once)
        self._pushed.close()
        if self._store:
            self._store.close()

    async def post(self, answers: Answers, http: HttpRequest) -> Response:
        """An answer to a request in the body."""
        check_key(basic_key(http), self._settings.keys, elsewhere="")
        body = await read_body(http, self._settings.max_request_bytes, lambda count: None)
        try:
            request = msgspec.json.decode(body, type=Request)
            return as_json(200, await answers(request))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(400, f"The body is not as expected: {error}. See /openapi.json.") from None
        except UserError as error:
            raise RequestError(400, str(error)) from None

    async def items(self, http: HttpRequest) -> Response:
        """What may be shown of the items that the parameter `ids` names."""
        check_key(basic_key(http), self._settings.keys, elsewhere="")
        try:
            ids = ids_of(http.query_params.get("ids", ""))
        except UserError as error:
            raise RequestError(400, str(error)) from None
        return as_json(200, {"items": await asyncio.to_thread(self._items.find, ids)})

    async def features(self, http: HttpRequest) -> Response:
        """Current features of entities, with the positions that they were read at."""
        check_key(basic_key(http), self._settings.keys, elsewhere="")
        body = await read_body(http, self._settings.max_request_bytes, lambda count: None)
        try:
            asked = msgspec.json.decode(body, type=FeaturesRequest)
            found = await asyncio.to_thread(self._features.read, asked)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(400, f"The body is not as expected: {error}. See /openapi.json.") from None
        except UserError as error:
            raise RequestError(400, str(error)) from None
        except Transient as error:
            raise RequestError(503, str(error)) from None
        return as_json(200, found)

    def _served(self) -> dict[str, Any]:
        """What answers are made of."""
        catalogue = self.recommender.catalogue.current
        return {
            "models": self.recommender.models.describe(),
            "rankers": self.recommender.rankers.describe(),
            "catalogue": {
                "dataset": catalogue.source,
                "items": len(catalogue.items),
                "shows": _shown(catalogue),
            },
        }

    async def health(self, _: HttpRequest) -> Response:
        """200: there is an answer to every request. What it is made of, and what is missing."""
        served = self._served()
        failures = {one.name: one.failure for one in self.refreshers if one.failure}
        log = self.recommender.log.health()
        well = (
            not failures
            and log["status"] == "ok"
            and all(one["served"] and not one["failure"] for one in served["models"])
        )
        content = {
            "status": "ok" if well else "degraded",
            **served,
            "visitors": self._follower and {"known": len(self._visitors), "positions": self._follower.positions},
            "online": self._online_lag,
            "log": log,
            "refreshed_seconds_ago": {one.name: one.age and round(one.age, 1) for one in self.refreshers},
            "failures": failures,
        }
        return as_json(200, content)

    async def metrics(self, _: HttpRequest) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, _: HttpRequest) -> Response:
        """The description of this API."""
        return as_json(200, self._openapi)


def _shown(catalogue: Catalogue) -> str:
    if not catalogue.read:
        return "nothing: it could not be read yet"
    return "available items" if catalogue.source else "every item that a model knows"


def _count(metrics: ServingMetrics, what: str) -> None:
    metrics.refresh_failures.labels(what).inc()


def _opened(settings: Settings) -> OnlineStore | None:
    """The online store; None if it cannot be used, which answers do without."""
    try:
        return open_online_store(settings)
    except RecsysDataError as error:
        logger.error("Answers do without the online store: %s", error)
        return None
