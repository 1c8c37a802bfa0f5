"""How the features of a view over streams are kept for each entity: as pieces, of the lengths that its windows need.

A window that moves in hops needs one piece for each hop, one that rolls needs every moment, one without an end needs a
single piece. What happened in the future, or within the delay of a feature, waits as single moments until its time has
come. So at any later moment the pieces of an entity give the values that the point-in-time join gives.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from recsys_data.contracts.features.check import Resolved, resolve
from recsys_data.contracts.features.functions import DECAYED, DISTINCT_LEAST, SUM, State
from recsys_data.contracts.features.sources import SESSIONS
from recsys_data.contracts.features.view import DAY, LIFETIME, ROLLING, FeatureView, Source, keys, over_histories
from recsys_data.features.intervals import Span
from recsys_data.features.tiles import Plan, plan

# Changes whenever the same declaration leads to other pieces.
FORMAT = 2
MOMENT, ALL = 1, 0
# Beside the features of a view: whether anything was known of the entity, as the point-in-time join has it.
KNOWN = "known"
NEVER = 2**62
# Kind of a state that is summed -> limbs of 32 bits beside the number of rows, which is all of a count.
LIMBS = {"count": 0, "numbers": 0, "sum": 2, "squares": 4}


@dataclass(frozen=True)
class Group:
    """Pieces of one length and delay.

    Attributes:
        hop: length in microseconds; MOMENT: each moment for itself; ALL: one piece for all time.
        delay: microseconds by which what happened has to lie back.
        asked: (span, state) of what is merged from them.
        reach: microseconds after its start from which on no window reaches a piece.
    """

    hop: int
    delay: int
    asked: tuple[tuple[int, State], ...]
    reach: int

    @cached_property
    def states(self) -> tuple[State, ...]:
        return tuple(dict.fromkeys(state for _, state in self.asked))

    @cached_property
    def columns(self) -> "Columns":
        """Where states lie."""
        whole: dict[State, tuple[int, int]] = {}
        real: dict[State, int] = {}
        width = 0
        for state in self.states:
            if state.merge not in (SUM, DECAYED):
                continue
            number = 1 + (LIMBS[state.name.split("_")[0]] if state.merge == SUM else 0)
            whole[state] = (width, number)
            width += number
            if state.merge == DECAYED:
                real[state] = len(real)
        hashes = tuple(one for one in self.states if one.merge == DISTINCT_LEAST)
        best = tuple(one for one in self.states if one.merge not in (SUM, DECAYED, DISTINCT_LEAST))
        return Columns(whole, real, hashes, best)


@dataclass(frozen=True)
class Layout:
    """How one stream of a view is kept.

    Attributes:
        view: the view.
        name: of the stream.
        source: what that is.
        planned: its features, states and windows.
        groups: in a fixed order.
    """

    view: FeatureView
    name: str
    source: Source
    planned: Plan
    groups: tuple[Group, ...]

    @cached_property
    def kinds(self) -> dict[State, str]:
        """DuckDB type of what each state is made of."""
        planned = self.planned
        return {state: kind for one, kind in planned.features.items() for state in planned.states[one.name].values()}

    @property
    def anonymous(self) -> str | None:
        """The column that stands for a user who is not known yet; None if there is none."""
        more = keys(self.view, self.source)[len(self.view.entity) :]
        return more[0] if more else None


@dataclass(frozen=True)
class OnlineView:
    """A view that is kept online.

    Attributes:
        view: as declared.
        resolved: its types.
        streams: how each of its streams is kept; empty for a view over histories.
        digest: changes whenever what is kept does.
    """

    view: FeatureView
    resolved: Resolved
    streams: tuple[Layout, ...]
    digest: str


def online_view(view: FeatureView, sources: Mapping[str, Source]) -> OnlineView | str:
    """How a view is kept online, or why it is not."""
    view = over_histories(view, sources)
    names = list(dict.fromkeys(view.source_of(one) for one in view.features if not one.expression))
    if SESSIONS in names:
        return "it is computed from sessions, which change as late events come in"
    if any(one.embedding for one in view.features):
        return "it has embeddings, which take a model to compute"
    histories = [name for name in names if sources[name].valid]
    if histories and len(histories) < len(names):
        return f"it mixes histories ({', '.join(histories)}) with streams"
    resolved = resolve(view, sources)
    streams = () if histories else tuple(_layout(view, name, sources[name], resolved) for name in names)
    said = repr((FORMAT, view, resolved.types, [(one.name, one.groups) for one in streams]))
    return OnlineView(view, resolved, streams, hashlib.blake2b(said.encode(), digest_size=12).hexdigest())


def _layout(view: FeatureView, name: str, source: Source, resolved: Resolved) -> Layout:
    planned = plan(view, name, source, resolved, commit=False)
    # There is always one piece for all time, which says that anything was known.
    asked: dict[tuple[int, int], list[tuple[int, State]]] = {(ALL, 0): []}
    for state, spans in planned.needed().items():
        for number in spans:
            span = planned.spans[number]
            asked.setdefault((_hop(span, state), span.delay), []).append((number, state))
    groups = [
        Group(
            hop,
            delay,
            tuple(found),
            NEVER if hop == ALL else max(_reach(planned.spans[number], hop) for number, _ in found),
        )
        for (hop, delay), found in sorted(asked.items())
    ]
    return Layout(view, name, source, planned, tuple(groups))


def _hop(span: Span, state: State) -> int:
    if span.window.kind == ROLLING:
        return MOMENT
    if span.window.kind == LIFETIME:
        # What halves with time refers to the end of its piece.
        return DAY if state.merge == DECAYED else ALL
    return span.window.hop


def _reach(span: Span, hop: int) -> int:
    return NEVER if span.window.kind == LIFETIME else hop + span.window.size + span.delay


@dataclass(frozen=True)
class Columns:
    """Where the states of a group lie in its arrays.

    Attributes:
        whole: state -> first column and number of columns of integers; the first of several, and that of a
            state in `real`, says whether there is a value.
        real: state -> column of doubles.
        hashes: states that are lists of hashes.
        best: states that are the first or last in an order.
    """

    whole: Mapping[State, tuple[int, int]]
    real: Mapping[State, int]
    hashes: tuple[State, ...]
    best: tuple[State, ...]

    @cached_property
    def width(self) -> int:
        return sum(number for _, number in self.whole.values())

    @cached_property
    def flags(self) -> list[int]:
        """The columns of integers that say whether there is a value."""
        return [first for state, (first, number) in self.whole.items() if number > 1 or state in self.real]
