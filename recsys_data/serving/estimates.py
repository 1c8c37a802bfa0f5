"""What a challenger would be worth if it ordered what the scenario chose: off-policy, from logged propensities.

Data flow: impressions with the shortlist that their order was drawn from, and their clicks -> the challenger orders
each shortlist for its visitor -> weights -> SNIPS and DR (`recsys_data.training.off_policy`), intervals over visitors.
Only answers count that were given after the challenger was registered: it may have learned from those before. Run
alone: `recsys-data recommendations --off-policy`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from recsys_data.errors import UserError
from recsys_data.serving.bots import EVENTS, VISITOR, bots_sql, connect_events
from recsys_data.serving.log import SHORTLIST, SOURCE
from recsys_data.serving.scenarios.declared import Scenarios
from recsys_data.settings import Settings
from recsys_data.sql import literal
from recsys_data.storage.tables import Lake
from recsys_data.training.baselines.model import Model
from recsys_data.training.off_policy import Estimate, evaluate
from recsys_data.training.registry import CHALLENGER, MODELS, aliases_of
from recsys_data.training.train import load

# The newest answers of a scenario that count: the challenger is asked for each, some milliseconds.
MOST = 5_000

Order = Callable[[str, Sequence[str]], Sequence[str]]


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """Clicks per impression, as they are and as they would be with the challenger.

    Attributes:
        scenario: as in the impressions.
        challenger: name and version, such as `next_items/4`.
        answers: that could be used.
        visitors: of them.
        effective_sample_size: in impressions; the smaller, the less is known.
        on_policy: what was shown.
        snips, dr: the challenger, estimated in two ways; None where nothing can be said.
        missing: why nothing can be said; empty if there are estimates.
    """

    scenario: str
    challenger: str
    answers: int
    visitors: int
    effective_sample_size: float = 0.0
    on_policy: Estimate | None = None
    snips: Estimate | None = None
    dr: Estimate | None = None
    missing: str = ""


class Shown(NamedTuple):
    """An impression of an answer.

    Attributes:
        answer: recommendation id.
        visitor: to whom.
        shortlist: what the order was drawn from, best first.
        item_id, position, propensity: of the item.
        clicked: whether it was.
    """

    answer: str
    visitor: str
    shortlist: tuple[str, ...]
    item_id: str
    position: int
    propensity: float
    clicked: bool


QUERY = f"""
    WITH bots AS ({{bots}}),
    answers AS (
        SELECT recommendation_id, {VISITOR} AS visitor, event_ts::DATE AS day,
            from_json(json_extract(properties, '$.{SHORTLIST}'), '["VARCHAR"]') AS shortlist
        FROM {EVENTS} WHERE type = 'impression' AND source = {literal(SOURCE)} AND list_id = $scenario
            AND event_ts >= $since AND contains(properties, '"{SHORTLIST}"')
        QUALIFY row_number() OVER (PARTITION BY recommendation_id ORDER BY position) = 1),
    newest AS (
        SELECT a.* FROM answers a LEFT JOIN bots USING (visitor, day) WHERE bots.visitor IS NULL
        ORDER BY day DESC, recommendation_id LIMIT {MOST}),
    clicks AS (
        SELECT DISTINCT recommendation_id, item_id FROM {EVENTS}
        WHERE type = 'click' AND recommendation_id IS NOT NULL AND event_ts >= $since)
    SELECT n.recommendation_id, n.visitor, n.shortlist, i.item_id, i.position, i.propensity,
        clicks.item_id IS NOT NULL
    FROM newest n
    JOIN {EVENTS} i ON i.recommendation_id = n.recommendation_id AND i.type = 'impression' AND i.event_ts >= $since
    LEFT JOIN clicks ON clicks.recommendation_id = n.recommendation_id AND clicks.item_id = i.item_id
    WHERE i.propensity > 0 AND i.position IS NOT NULL
    ORDER BY n.recommendation_id, i.position"""


def estimates(lake: Lake, settings: Settings, since: datetime | None = None) -> list[Estimated]:
    """The estimates of each scenario whose model has a challenger.

    Args:
        lake: where impressions and the registry are.
        settings: say where models and scenarios are.
        since: only answers from this moment on count.

    Raises:
        UserError: the files of a challenger are gone.
    """
    aliases = aliases_of(lake) if lake.exists(MODELS) else {}
    found = []
    for name, scenario in Scenarios.of(*settings.contract_dirs).declared.items():
        version = aliases.get(scenario.model, {}).get(CHALLENGER)
        if version is None or not lake.exists(EVENTS):
            continue
        model, about = load(lake, settings, scenario.model, str(version))
        if not isinstance(model, Model):
            continue
        begin = max(since, about.registered_at) if since else about.registered_at
        found.append(estimated(name, f"{scenario.model}/{version}", _shown(lake, name, begin), _order(model)))
    return found


def estimated(scenario: str, challenger: str, shown: Sequence[Shown], order: Order) -> Estimated:
    """The estimates from impressions.

    Args:
        scenario: its name.
        challenger: its name.
        shown: impressions.
        order: orders a shortlist for a visitor, all of it.
    """
    answers, visitors = len({one.answer for one in shown}), len({one.visitor for one in shown})
    about: dict[str, Any] = {
        "scenario": scenario,
        "challenger": challenger,
        "answers": answers,
        "visitors": visitors,
    }
    if not shown:
        return Estimated(**about, missing="no answer with exploration since it was registered")
    try:
        of = evaluate(columns(shown, order))
    except UserError as error:
        return Estimated(**about, missing=str(error))
    values = of.estimates
    return Estimated(
        **about,
        effective_sample_size=of.effective_sample_size,
        on_policy=values["on_policy"],
        snips=values["snips"],
        dr=values["dr"],
    )


def columns(shown: Sequence[Shown], order: Order) -> dict[str, list[Any]]:
    """What `off_policy.evaluate` takes. The reward model of DR is the click rate of the position.

    >>> one = Shown("r", "v", ("a", "b"), "a", 1, 0.9, True)
    >>> found = columns([one, one._replace(item_id="b", position=2, clicked=False)], lambda visitor, items: items[::-1])
    >>> found["target_probability"], found["q_target"]
    ([0.0, 0.0], [1.0, 0.0])
    """
    orders: dict[str, Sequence[str]] = {}
    for one in shown:
        if one.answer not in orders:
            orders[one.answer] = order(one.visitor, one.shortlist)
    rates = _click_rates(shown)
    predicted = [rates[one.position] for one in shown]
    return {
        "reward": [float(one.clicked) for one in shown],
        "propensity": [one.propensity for one in shown],
        "target_probability": [float(_at(orders[one.answer], one.position) == one.item_id) for one in shown],
        "cluster_id": [one.visitor for one in shown],
        "q_logged": predicted,
        "q_target": predicted,
    }


def _at(order: Sequence[str], position: int) -> str | None:
    return order[position - 1] if 0 < position <= len(order) else None


def _click_rates(shown: Iterable[Shown]) -> dict[int, float]:
    clicks: dict[int, list[bool]] = defaultdict(list)
    for one in shown:
        clicks[one.position].append(one.clicked)
    return {position: sum(found) / len(found) for position, found in clicks.items()}


def _order(model: Model) -> Order:
    """How a model orders a shortlist: what it does not know follows as it was."""

    def order(visitor: str, shortlist: Sequence[str]) -> Sequence[str]:
        said = model.recommend([visitor], len(shortlist), exclude_seen=False, candidates=list(shortlist))
        ranked = said.column("item_id").to_pylist()
        known = set(ranked)
        return [*ranked, *(one for one in shortlist if one not in known)]

    return order


def _shown(lake: Lake, scenario: str, since: datetime) -> list[Shown]:
    connection, contexts = connect_events(lake)
    with connection:
        rows = connection.execute(
            QUERY.format(bots=bots_sql(contexts)), {"scenario": scenario, "since": since}
        ).fetchall()
    return [Shown(answer, visitor, tuple(shortlist or ()), *rest) for answer, visitor, shortlist, *rest in rows]
