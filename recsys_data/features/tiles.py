"""Tiles: partial aggregates of one entity, one hop of event time and one hop of known time.

A tile table has the keys of the view (and the anonymous id, where that may become a user), `tile_ts` and `known_ts`
(the starts of the hops, `known_ts` never before `tile_ts`), `first_ts` and `known_from` (the first event time of its
rows, and the first moment at which one of them had happened and was known) and a column for each state. The tiles of
a day are a function of the events of that day alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from recsys_data.contracts.features.check import Resolved
from recsys_data.contracts.features.functions import State, states_of
from recsys_data.contracts.features.view import Feature, FeatureView, Source, keys
from recsys_data.features.intervals import Span, floor, known_hop
from recsys_data.features.rows import rows
from recsys_data.sql import quote


@dataclass(frozen=True)
class Plan:
    """What one source of a view has to give.

    Attributes:
        features: aggregates over the source -> DuckDB type of what they aggregate.
        states: by name of the feature, kind of state -> state.
        spans: windows with their delays.
        span_of: name of a feature -> position in `spans`.
    """

    features: Mapping[Feature, str]
    states: Mapping[str, Mapping[str, State]]
    spans: tuple[Span, ...]
    span_of: Mapping[str, int]

    def needed(self) -> dict[State, list[int]]:
        """Each state once, with the spans that need it."""
        found: dict[State, list[int]] = {}
        for feature in self.features:
            for state in self.states[feature.name].values():
                spans = found.setdefault(state, [])
                if self.span_of[feature.name] not in spans:
                    spans.append(self.span_of[feature.name])
        return found


def plan(view: FeatureView, name: str, source: Source, resolved: Resolved, commit: bool = True) -> Plan:
    """What the source `name` of a view has to give; `commit`: whether it matters when rows were known."""
    aggregates = [one for one in view.features if one.is_aggregate and view.source_of(one) == name]
    features = {one: resolved.arguments[one.name] for one in aggregates}
    columns = dict(source.columns)
    states = {one.name: states_of(one, columns, kind, len(source.order)) for one, kind in features.items()}
    spans = tuple(dict.fromkeys(Span(one.window, one.delay, commit) for one in features))
    return Plan(
        features, states, spans, {one.name: spans.index(Span(one.window, one.delay, commit)) for one in features}
    )


def tiles(view: FeatureView, name: str, source: Source, resolved: Resolved, query: str) -> str:
    """SQL of the tiles of rows.

    Args:
        view: without problems.
        name: of one of its streams.
        source: what that is.
        resolved: types of the view.
        query: SQL of the rows of whole days.
    """
    states = plan(view, name, source, resolved).needed()
    whose = ", ".join(map(quote, keys(view, source)))
    tile = floor('"#ts"', view.hop)
    known = known_hop(view.hop)
    happened, end = '"#ts"', f'"#tile" + {view.hop}'
    columns = ", ".join(f"{state.gather.format(at=happened, to=end)} AS {quote(state.name)}" for state in states)
    return f"""SELECT {whose}, make_timestamptz("#tile") AS tile_ts, make_timestamptz("#hop") AS known_ts,
        make_timestamptz(min("#ts")) AS first_ts,
        make_timestamptz(min(greatest("#ts" + 1, "#known"))) AS known_from, {columns}
        FROM (SELECT *, {tile} AS "#tile", {known} AS "#hop" FROM ({rows(view, source, query, states)}))
        GROUP BY {whose}, "#tile", "#hop\""""
