"""Where the items of an answer come from: what a model says, within a time budget.

A model says the same until it is replaced, so that what it said is remembered (`models.py`). What is not is asked in a
thread; an answer that cannot wait so long does without, and the next one finds it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from recsys_data.serving.answers import Recent, Request
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.serving.models import ServedModel
from recsys_data.serving.ranking import Candidates
from recsys_data.serving.scenarios.declared import Scenario

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
    """

    def __init__(self, metrics: ServingMetrics) -> None:
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(MODEL_THREADS, thread_name_prefix="serving-model")
        self._waiting = 0

    async def gather(self, request: Request, scenario: Scenario, recent: Recent, model: ServedModel | None) -> Gathered:
        """The candidates of all sources of the scenario."""
        if model is None:
            self._metrics.unanswered.labels("missing").inc()
            return Gathered([], None)
        last = tuple(reversed((recent.session or recent.items)[-LAST_ITEMS:]))
        seeds = {"session": last, "similar": tuple(reversed(request.items[-GIVEN_ITEMS:]))}
        seeds = {name: items for name, items in seeds.items() if name in scenario.candidates}
        user = who(request) if "model" in scenario.candidates else None
        asked = tuple(item for items in seeds.values() for item in items)
        if model.remembered_similar(asked) is None or (user and model.remembered_user(user) is None):

            def ask() -> None:
                model.similar(asked)
                if user:
                    model.recommend(user)

            await self.within(scenario.budget_ms, ask)
        found = []
        for source in scenario.candidates:
            if source == "popular":
                found.append(Candidates(model.popular[:POPULAR], source))
            elif source == "model":
                found.append(Candidates(model.remembered_user(user) or () if user else (), source))
            else:
                found.append(Candidates(_similar(model, seeds[source]), source))
        chosen = any(items for items, reason in found if reason != "popular")
        return Gathered([one for one in found if one.items], model.name if chosen else None)

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
        return Gathered(kept, found.model if any(why != "popular" for _, why in kept) else None)

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
    said = model.remembered_similar(seeds) or {}
    if len(said) == 1:
        return [item for item, _ in next(iter(said.values()))]
    scores: dict[str, float] = {}
    for place, found in enumerate(said.values()):
        weight = 1 / (1 + place)
        for item, score in found:
            scores[item] = scores.get(item, 0.0) + weight * score
    return sorted(scores, key=scores.__getitem__, reverse=True)[:MOST_SIMILAR]
