"""Makes an answer: candidates -> ranking -> filters and availability -> exploration -> answer -> impressions.

From the filters on nothing waits, so that an answer holds only items that the newest catalogue shows, and propensities
are exact.
"""

import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import msgspec

from recsys_data.errors import UserError
from recsys_data.serving.answers import MAX_ITEMS, Answer, Item, Recent, Request, Visitors
from recsys_data.serving.candidates import Gathered, Sources
from recsys_data.serving.catalogue import CatalogueReader
from recsys_data.serving.delays import EventDelays
from recsys_data.serving.exploration import explore, propensities
from recsys_data.serving.filters import Keeps, filter_of
from recsys_data.serving.log import ServedLog
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.models import ModelLoader, ServedModel
from recsys_data.serving.rankers import RANKED, RankerLoader, Scores
from recsys_data.serving.ranking import Ranked, by_scores, fuse
from recsys_data.serving.scenarios.declared import BY_SEGMENT, CONTENT, Chosen, Scenario, Scenarios
from recsys_data.serving.visitors import keys

logger = logging.getLogger(__name__)

ID_BYTES = 12


@dataclass(frozen=True)
class LakeRecommender:
    """Answers from the registered models and the catalogue of a lake; a `Recommender`.

    Attributes:
        scenarios: what is declared.
        models: the loaded versions.
        rankers: the loaded rankers.
        catalogue: what may be shown.
        visitors: what visitors met.
        sources: ask the models.
        log: gets every answer.
        metrics: count answers.
        delays: learn whom answers are given to.
    """

    scenarios: Scenarios
    models: ModelLoader
    rankers: RankerLoader
    catalogue: CatalogueReader
    visitors: Visitors
    sources: Sources
    log: ServedLog
    metrics: ServingMetrics
    delays: EventDelays

    async def recommend(self, request: Request) -> Answer:
        """Items for a visitor; see `Recommender`."""
        return await self._answer(request)

    async def similar(self, request: Request) -> Answer:
        """Items similar to those of the request; see `Recommender`."""
        if not request.items:
            raise UserError("items is empty; expected the items to which others are similar.")
        return await self._answer(request, similar=True)

    async def rank(self, request: Request) -> Answer:
        """The items of the request in the best order; see `Recommender`."""
        if not request.items:
            raise UserError("items is empty; expected the items to order.")
        return await self._answer(request, given=True)

    async def _answer(self, request: Request, *, given: bool = False, similar: bool = False) -> Answer:
        begun = time.perf_counter()
        recommendation_id = request.recommendation_id or secrets.token_hex(ID_BYTES)
        chosen = self._chosen(request, recommendation_id, similar)
        scenario = chosen.scenario
        recent = self._recent(request)
        model = self.models.find(scenario.model, scenario.alias)
        gather = self.sources.order if given else self.sources.gather
        found = await gather(request, scenario, recent, model)
        scores = await self._scores(request, scenario, found)
        # Of rows to order all are answered, unless fewer are asked for.
        n = request.n or (min(len(request.items), MAX_ITEMS) if given else scenario.n)
        end = request.offset + n
        keeps = filter_of(request, scenario, recent, self.catalogue.current, given=given)
        ranked = by_scores(fuse(found.sources), scores)
        shortlist = self._shortlist(request, ranked, keeps, max(end, scenario.shortlist), end, model, given)
        values = [one.score for one in shortlist]
        order = explore(values, scenario.exploration, recommendation_id)[request.offset : end]
        chances = propensities(values, order, scenario.exploration, request.offset)
        shown = zip(order, chances, strict=True)
        answer = Answer(
            recommendation_id=recommendation_id,
            model=(scores.ranker if scores else found.model) or _chooser(shortlist),
            variant=chosen.variant,
            scenario=request.scenario,
            fallback=not any(one.score > 0 for one in shortlist),
            items=tuple(
                Item(
                    item_id=shortlist[rank].item_id,
                    position=position,
                    score=shortlist[rank].score,
                    propensity=propensity,
                    reason=shortlist[rank].reason,
                )
                for position, (rank, propensity) in enumerate(shown, request.offset + 1)
            ),
        )
        delay = self.delays.used(keys(request.user_id, request.anonymous_id, request.session_id))
        drawn_from = [one.item_id for one in shortlist] if scenario.exploration else ()
        self.log.add(request, answer, delay, scores, drawn_from)
        self.metrics.answers.labels(answer.scenario, str(answer.fallback).lower()).inc()
        self.metrics.answer_seconds.observe(time.perf_counter() - begun)
        return answer

    async def _scores(self, request: Request, scenario: Scenario, found: Gathered) -> Scores | None:
        """What the ranker of the scenario says of the candidates; None if there is none, or it cannot be asked."""
        if not scenario.ranker:
            return None
        ranker = self.rankers.find(scenario.ranker, scenario.ranker_alias)
        items = [one.item_id for one in islice(fuse(found.sources), RANKED)]
        if ranker is None or not items:
            self.metrics.unanswered.labels("no ranker" if ranker is None else "no candidates").inc()
            return None
        said: list[Scores] = []
        await self.sources.within(scenario.budget_ms, lambda: said.append(ranker.score(request, items)))
        # Whole or not at all: one that was too slow may still be at it.
        return said[0] if said else None

    def _chosen(self, request: Request, recommendation_id: str, similar: bool) -> Chosen:
        chosen = self.scenarios.choose(request.scenario, request.visitor or recommendation_id)
        if not similar:
            return chosen
        # What else the scenario takes items from is not similar to these.
        also = [one for one in chosen.scenario.candidates if one == CONTENT]
        return Chosen(chosen.variant, msgspec.structs.replace(chosen.scenario, candidates=("similar", *also)))

    def _recent(self, request: Request) -> Recent:
        try:
            return self.visitors.recent_items(request)
        except Exception:
            logger.exception("What the visitor met could not be read; the answer does without it.")
            self.metrics.unanswered.labels("visitors").inc()
            return Recent()

    def _shortlist(
        self,
        request: Request,
        ranked: Iterable[Ranked],
        keeps: Keeps,
        size: int,
        least: int,
        model: ServedModel | None,
        given: bool,
    ) -> list[Ranked]:
        """At most `size` of the candidates that are kept; if they are fewer than `least`, others follow, below 0."""
        shortlist: list[Ranked] = []
        for one in ranked:
            if len(shortlist) == size:
                break
            if keeps(one.item_id):
                shortlist.append(one)
        if len(shortlist) >= least:
            return shortlist
        there = {one.item_id for one in shortlist}
        for item_id, reason in self._others(request, model, given):
            if len(shortlist) >= least:
                break
            if item_id not in there and keeps(item_id):
                there.add(item_id)
                shortlist.append(Ranked(item_id, 1 / (len(shortlist) + 2) - 1, reason))
        return shortlist

    def _others(self, request: Request, model: ServedModel | None, given: bool) -> Iterator[tuple[str, str]]:
        """Items that follow where candidates are too few."""
        if given:
            known = model.known if model else {}
            ranked = sorted((one for one in request.items if one in known), key=known.__getitem__)
            return chain(((one, "popular") for one in ranked), ((one, "given") for one in request.items))
        # What is popular with one model is what the next one would say too.
        model = model or next(iter(list(self.models.loaded.values())), None)
        popular = model.popular if model else ()
        items = self.catalogue.current.items
        return chain(((one, "popular") for one in popular), ((one, "available") for one in items))


def _chooser(shortlist: Iterable[Ranked]) -> str:
    """What stands for the model where none chose."""
    reasons = {one.reason for one in shortlist}
    return next((one for one in (CONTENT, BY_SEGMENT, "popular") if one in reasons), "available")
