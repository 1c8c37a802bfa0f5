"""Where the items of an answer come from: what a model says, within a time budget.

A model says the same until it is replaced, so that what it said is remembered (`models.py`). What is not is asked in a
thread; an answer that cannot wait so long does without, and the next one finds it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from recsys_data.serving.answers import Recent, Request
from recsys_data.serving.content import Content, ContentReader
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.models import ServedModel
from recsys_data.serving.ranking import Candidates
from recsys_data.serving.scenarios.declared import BY_SEGMENT, CONTENT, Scenario
from recsys_data.serving.segments import Segments

logger = logging.getLogger(__name__)

# Of the items that a visitor met last, and of those of the request, so many count.
LAST_ITEMS = 5
GIVEN_ITEMS = 10
# Models limit the threads of linear algebra for the whole process, which two at once would undo for each other.
MODEL_THREADS = 1
# More requests that wait for a model would be answered too late.
MOST_WAITING = 64
POPULAR = 200
MOST_SIMILAR = 100
MOST_ALIKE = 50
# Reasons of items that a model chose.
OF_MODEL = frozenset({"session", "similar", "model"})


class Gathered(NamedTuple):
    """Candidates of a request.

    Attributes:
        sources: those that have items, in the order of the scenario.
        model: name of the model that chose some of them; None: none did.
    """

    sources: list[Candidates]
    model: str | None


class Sources:
    """Asks models.

    Args:
        metrics: count what was asked in vain.
        content: knows what items are like; None: no scenario asks.
        segments: know what is popular in which segment.
    """

    def __init__(
        self, metrics: ServingMetrics, content: ContentReader | None = None, segments: Segments | None = None
    ) -> None:
        self._metrics = metrics
        self._content, self._segments = content, segments
        self._threads = ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="serving-model")
        self._waiting = 0

    async def gather(self, request: Request, scenario: Scenario, recent: Recent, model: ServedModel | None) -> Gathered:
        """The candidates of all sources of the scenario."""
        last = tuple(reversed((recent.session or recent.items)[-LAST_ITEMS:]))
        seeds = {"session": last, "similar": tuple(reversed(request.items[-GIVEN_ITEMS:]))}
        found: dict[str, Sequence[str]] = {}
        if model is None:
            self._metrics.unanswered.labels("missing").inc()
        else:
            found = await self._of_model(request, scenario, seeds, model)
        if CONTENT in scenario.candidates and self._content:
            alike = seeds["similar"] or last
            found[CONTENT] = await self._alike(self._content.current, scenario.budget_ms, alike, model)
        popular = model.popular[:POPULAR] if model else ()
        listed = []
        for source in scenario.candidates:
            if source == BY_SEGMENT:
                value = request.context.get(scenario.segment)
                items = self._segments.popular(scenario.segment, value) if self._segments else ()
                listed.append(Candidates(items, source) if items else Candidates(popular, "popular"))
            else:
                listed.append(Candidates(popular if source == "popular" else found.get(source, ()), source))
        chosen = model is not None and any(items and why in OF_MODEL for items, why in listed)
        return Gathered([one for one in listed if one.items], model.name if model and chosen else None)

    async def _of_model(
        self, request: Request, scenario: Scenario, seeds: Mapping[str, Sequence[str]], model: ServedModel
    ) -> dict[str, Sequence[str]]:
        """What a model says, by source."""
        seeds = {name: items for name, items in seeds.items() if name in scenario.candidates}
        user = who(request) if "model" in scenario.candidates else None
        asked = tuple(item for items in seeds.values() for item in items)
        if model.remembered_similar(asked) is None or (user and model.remembered_user(user) is None):

            def ask() -> None:
                model.similar(asked)
                if user:
                    model.recommend(user)

            await self.within(scenario.budget_ms, ask)
        found: dict[str, Sequence[str]] = {name: _similar(model, items) for name, items in seeds.items()}
        if user:
            found["model"] = model.remembered_user(user) or ()
        return found

    async def _alike(
        self, content: Content, budget_ms: int, seeds: Sequence[str], model: ServedModel | None
    ) -> Sequence[str]:
        """Items like the seeds by what the catalogue says of them."""
        name, known = (model.name, model.known) if model else ("", {})
        if content.remembered(name, seeds) is None:
            await self.within(budget_ms, lambda: content.similar(name, known, seeds))
        return _added(content.remembered(name, seeds) or ())[:MOST_ALIKE]

    async def order(self, request: Request, scenario: Scenario, recent: Recent, model: ServedModel | None) -> Gathered:
        """The items of the request as sources order them: as `gather`, but only of those items."""
        found = await self.gather(request, scenario, recent, model)
        given = set(request.items)
        sources = [Candidates([one for one in items if one in given], why) for items, why in found.sources]
        user = who(request)
        if model and user and "model" in scenario.candidates and model.remembered_user(user):
            ranked: list[str] = []
            await self.within(scenario.budget_ms, lambda: ranked.extend(model.rank(user, request.items)))
            # Whole or not at all: a model that was too slow may still be writing.
            sources = [
                Candidates(tuple(ranked), why) if why == "model" and ranked else (it, why) for it, why in sources
            ]
        kept = [Candidates(items, why) for items, why in sources if items]
        return Gathered(kept, found.model if any(why in OF_MODEL for _, why in kept) else None)

    async def within(self, budget_ms: int, work: Callable[[], object]) -> None:
        """Do work in a thread; return when it is done, failed or takes longer than the budget."""
        if self._waiting >= MOST_WAITING:
            self._metrics.unanswered.labels("busy").inc()
            return
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        done, _ = await asyncio.wait((future,), timeout=budget_ms / 1000)
        if not done:
            self._metrics.unanswered.labels("slow").inc()

    def _done(self, future: "asyncio.Future[object]") -> None:
        self._waiting -= 1
        if not future.cancelled() and (error := future.exception()):
            self._metrics.unanswered.labels("failed").inc()
            logger.error("A model failed; answers do without it.", exc_info=error)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def who(request: Request) -> str | None:
    """By what models know a visitor: as training sets, the user, else the device."""
    return request.user_id or request.anonymous_id


def _similar(model: ServedModel, seeds: Sequence[str]) -> Sequence[str]:
    """Items similar to the seeds, of which each counts less than the one before."""
    return _added(list((model.remembered_similar(seeds) or {}).values()))[:MOST_SIMILAR]


def _added(said: Sequence[Sequence[tuple[str, float]]]) -> list[str]:
    """The items of lists with scores, of which each counts less than the one before."""
    if len(said) == 1:
        return [item for item, _ in said[0]]
    scores: dict[str, float] = {}
    for place, found in enumerate(said):
        weight = 1 / (1 + place)
        for item, score in found:
            scores[item] = scores.get(item, 0.0) + weight * score
    return sorted(scores, key=scores.__getitem__, reverse=True)
