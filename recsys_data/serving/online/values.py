"""The values of the features of a view at a moment, from the pieces of its entities.

Data flow: pieces -> those that a window reaches, merged for each entity -> values, as `functions.FUNCTIONS` says them
in SQL -> expressions, in DuckDB. A statement takes DuckDB milliseconds to plan, which is why the rest is done in NumPy,
and most expressions too; a test holds both against each other.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_data.contracts.features.expressions import REQUEST, TIMESTAMP, references, renamed
from recsys_data.contracts.features.functions import DECAYED, SKETCH, State, is_integer
from recsys_data.contracts.features.view import DAY, LIFETIME, Feature
from recsys_data.contracts.sql_guard import syntax_tree
from recsys_data.features.intervals import Span
from recsys_data.features.lake import open_features
from recsys_data.features.merging import decimals
from recsys_data.serving.online.expressions import Column, Unsupported, array_of, column_of, evaluated
from recsys_data.serving.online.kinds import arrow_type, restored
from recsys_data.serving.online.layout import ALL, KNOWN, MOMENT, NEVER, Group, Layout, OnlineView
from recsys_data.serving.online.pieces import (
    Elements,
    Pieces,
    best_of,
    in_hops,
    joined,
    kept,
    least_hashes,
    merged,
)
from recsys_data.sql import quote

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_data.serving.online.pieces import Numbers

# Whole numbers up to it are doubles.
EXACT = 2**53
# What a state came to, by span and state: integers by column; doubles; (offsets, hashes); or values in order.
Merged = dict[tuple[int, State], Any]


class Values:
    """Computes the values of one view; calls from several threads wait for each other.

    Args:
        online: a view over streams.
        wanted: names of features; None: all.
    """

    def __init__(self, online: OnlineView, wanted: Collection[str] | None = None) -> None:
        self.online = online
        names = [*(one.name for one in online.view.features), KNOWN]
        self.wanted = [name for name in names if wanted is None or name in wanted]
        self._lock = threading.Lock()
        self._connection = open_features()
        # So little is computed that threads would only wait for each other.
        self._connection.execute("SET threads = 1")
        self._expressions, self._needed = self._resolve()
        self._used = set().union(*references(self._connection, list(self._expressions.values())))
        self._trees = self._parsed()
        self._features = [
            [(one, kind) for one, kind in layout.planned.features.items() if one.name.lower() in self._needed]
            for layout in online.streams
        ]
        self._states = [
            self._wanted_states(layout, [one for one, _ in features])
            for layout, features in zip(online.streams, self._features, strict=True)
        ]
        kinds = [kind for layout in online.streams for kind in layout.kinds.values()]
        kinds += [online.resolved.types[name] for name in self._expressions]
        self._types = {kind: arrow_type(kind) for kind in dict.fromkeys(kinds)}

    def _parsed(self) -> dict[str, Any]:
        """The syntax trees of the expressions."""
        if not self._expressions:
            return {}
        found = syntax_tree(self._connection, f"SELECT {', '.join(self._expressions.values())}")
        return dict(zip(self._expressions, found[0]["node"]["select_list"] if found else [], strict=True))

    @staticmethod
    def _wanted_states(layout: Layout, features: Sequence[Feature]) -> list[dict[int, list[State]]]:
        """Of each group of a stream, the states by span that features are made of."""
        planned = layout.planned
        wanted = {(planned.span_of[one.name], state) for one in features for state in planned.states[one.name].values()}
        found = []
        for group in layout.groups:
            by_span: dict[int, list[State]] = {}
            for number, state in group.asked:
                if (number, state) in wanted:
                    by_span.setdefault(number, []).append(state)
            found.append(by_span)
        return found

    def groups(self, stream: int) -> list[bool]:
        """Of each group of a stream, whether anything that is wanted is made of it."""
        groups = zip(self.online.streams[stream].groups, self._states[stream], strict=True)
        return [bool(wanted) or (group.hop, group.delay) == (ALL, 0) for group, wanted in groups]

    def _resolve(self) -> tuple[dict[str, str], set[str]]:
        """The wanted expressions and those that they use, in order; and all features that are used."""
        declared = {one.name: one.expression for one in self.online.view.features if one.expression}
        uses = dict(zip(declared, references(self._connection, list(declared.values())), strict=True))
        needed = {name.lower() for name in self.wanted}
        for name in reversed(self.online.resolved.expressions):
            needed |= uses[name] if name.lower() in needed else set()
        return {name: declared[name] for name in self.online.resolved.expressions if name.lower() in needed}, needed

    def compute(
        self,
        streams: Sequence[Sequence[tuple[Pieces, Pieces]]],
        entities: int,
        moment: int,
        request: "Mapping[str, pa.Array] | None" = None,
    ) -> "pa.Table":
        """The features, a column each, by number of the entity.

        Args:
            streams: for each stream of the view the pieces and what waits of each group, by number of the entity, in
                ascending order.
            entities: how many there are.
            moment: in microseconds, not before what was stored last.
            request: what expressions use of the request: name -> values, one for each entity.
        """
        import pyarrow as pa

        found: dict[str, pa.Array] = {}
        known = np.zeros(entities, bool)
        for layout, features, asked, groups in zip(
            self.online.streams, self._features, self._states, streams, strict=True
        ):
            states: Merged = {}
            for group, wanted, (pieces, waiting) in zip(layout.groups, asked, groups, strict=True):
                states |= _states(layout, group, wanted, pieces, waiting, entities, moment)
                if (group.hop, group.delay) == (ALL, 0):
                    known[pieces.entity] = True
                    known[waiting.entity[waiting.start < moment]] = True
            for feature, kind in features:
                found[feature.name] = self._value(layout, feature, kind, states)
        found[KNOWN] = pa.array(known)
        if self._expressions:
            found |= self._express(found, entities, moment, request or {})
        return pa.table({name: found[name] for name in self.wanted})

    def _value(self, layout: Layout, feature: Feature, kind: str, states: Merged) -> "pa.Array":
        import pyarrow as pa

        span = layout.planned.span_of[feature.name]
        of = {what: states[span, state] for what, state in layout.planned.states[feature.name].items()}
        function = feature.function
        if function == "count":
            return pa.array(of["count"][:, 0])
        if function == "sum":
            seen, total = _total(layout, feature, "sum", of)
            return total.cast(pa.int64()) if is_integer(kind) else pa.array(_doubles(total), mask=~seen)
        if function in ("avg", "stddev"):
            return _moments(layout, feature, of)
        if function == "approx_count_distinct":
            return _distinct(*of["sketch"])
        if function == "decayed_sum":
            sums, seen = of["decayed"]
            return pa.array(sums, mask=~seen)
        wanted = self._types[kind]
        if function == "last_n":
            offsets, values = of["last_n"]
            none = pa.array(np.diff(offsets) == 0)
            return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), restored(values, kind, wanted), mask=none)
        return restored(of[function or ""], kind, wanted)

    def _express(
        self, found: "Mapping[str, pa.Array]", entities: int, moment: int, request: "Mapping[str, pa.Array]"
    ) -> "dict[str, pa.Array]":
        import pyarrow as pa

        try:
            return self._in_numpy(found, entities, moment, request)
        except Unsupported:
            pass
        asked = {f"#{REQUEST} {TIMESTAMP}": pa.array(np.full(entities, moment), pa.timestamp("us", "UTC"))}
        asked |= {f"#{REQUEST} {name.lower()}": values for name, values in request.items()}
        asked |= {f"#{name}": one for name, one in found.items() if name.lower() in self._used}
        given = pa.table({"#": pa.array(np.arange(entities)), **asked})
        with self._lock:
            # A relation would be bound several times, which takes longer than all else.
            self._connection.register("given", given)
            rows = self._connection.execute(self._sql).fetchall()
        types = {name: self._types[self.online.resolved.types[name]] for name in self._expressions}
        columns = list(zip(*rows, strict=True)) or [()] * len(types)
        return {name: pa.array(one, kind) for (name, kind), one in zip(types.items(), columns, strict=True)}

    def _in_numpy(
        self, found: "Mapping[str, pa.Array]", entities: int, moment: int, request: "Mapping[str, pa.Array]"
    ) -> "dict[str, pa.Array]":
        columns = {name.lower(): column_of(one) for name, one in found.items() if name.lower() in self._used}
        columns |= {f"{REQUEST}.{name.lower()}": column_of(one) for name, one in request.items()}
        columns[f"{REQUEST}.{TIMESTAMP}"] = Column("moment", np.full(entities, moment), np.ones(entities, bool))
        computed = {}
        for name, tree in self._trees.items():
            columns[name.lower()] = evaluated(tree, columns, entities)
            computed[name] = array_of(columns[name.lower()], self._types[self.online.resolved.types[name]])
        return computed

    @cached_property
    def _sql(self) -> str:
        """SQL of the expressions over `given`."""
        view = self.online.view
        names = {one.name.lower(): f"#{one.name}" for one in view.features}
        names |= {f"{REQUEST}.{name.lower()}": f"#{REQUEST} {name.lower()}" for name in (TIMESTAMP, *view.request)}
        sql = "FROM given"
        for name, expression in self._expressions.items():
            # One after the other, because expressions use those before them.
            value = renamed(self._connection, expression, names)
            sql = f"FROM (SELECT *, {value} AS {quote(f'#{name}')} {sql})"
        listed = ", ".join(f"{quote(f'#{name}')} AS {quote(name)}" for name in self._expressions)
        return f'SELECT {listed} {sql} ORDER BY "#"'


def _states(
    layout: Layout,
    group: Group,
    wanted: Mapping[int, Sequence[State]],
    pieces: Pieces,
    waiting: Pieces,
    entities: int,
    moment: int,
) -> Merged:
    """The merged states of each entity, of those that are wanted: by span."""
    if len(waiting):
        due = kept(waiting, waiting.start < moment - group.delay)
        pieces = merged(group, joined([pieces, in_hops(group, due)]))
    found: Merged = {}
    columns = group.columns
    for number, states in wanted.items():
        reach = _reach(layout.planned.spans[number], group)
        there = pieces if reach >= NEVER else kept(pieces, pieces.start + reach > moment)
        sums = _sums(there.whole, there.entity, entities)
        for state in states:
            if state in columns.whole:
                first, width = columns.whole[state]
                found[number, state] = sums[:, first : first + width]
                if state.merge == DECAYED:
                    weights = np.exp2((there.start + group.hop - moment) / (state.half_life or DAY))
                    amounts = there.real[:, columns.real[state]] * weights
                    found[number, state] = _sums(amounts, there.entity, entities), sums[:, first] > 0
            elif state in columns.hashes:
                elements = there.hashes[columns.hashes.index(state)]
                least = least_hashes(Elements(there.entity[elements.piece], elements.key))
                found[number, state] = np.searchsorted(least.piece, np.arange(entities + 1)), least.key
            else:
                found[number, state] = _best(there, there.best[columns.best.index(state)], state, entities)
    return found


def _reach(span: Span, group: Group) -> int:
    if span.window.kind == LIFETIME:
        return NEVER
    return (group.hop or MOMENT) + span.window.size + span.delay


def _sums(numbers: Any, entity: "Numbers", entities: int) -> Any:
    bounds = np.searchsorted(entity, np.arange(entities + 1))
    found = np.zeros((entities, *numbers.shape[1:]), numbers.dtype)
    some = bounds[:-1] < bounds[1:]
    if some.any():
        found[some] = np.add.reduceat(numbers, bounds[:-1][some], axis=0)
    return found


def _best(pieces: Pieces, elements: Elements, state: State, entities: int) -> Any:
    """Values, None where there are none; of a state that is a list, offsets and the values of all lists."""
    best = best_of(state, Elements(pieces.entity[elements.piece], elements.key, elements.value))
    values = [] if best.value is None else best.value.tolist()
    if state.elements:
        return np.searchsorted(best.piece, np.arange(entities + 1)), values
    found: list[Any] = [None] * entities
    for entity, value in zip(best.piece.tolist(), values, strict=True):
        found[entity] = value
    return found


def _total(layout: Layout, feature: Feature, what: str, of: Mapping[str, Any]) -> "tuple[Any, pa.Array]":
    """Whether anything was summed, and the sum as decimals."""
    import pyarrow as pa

    state = layout.planned.states[feature.name][what]
    scale = int(state.type.rstrip(")").split(",")[1])
    seen = of[what][:, 0] > 0
    return seen, decimals(list(of[what][:, 1:].T), seen, pa.decimal128(38, scale), state.argument)


def _doubles(sums: "pa.Array") -> Any:
    """Decimals as DuckDB makes doubles of them; 0 where they are NULL."""
    scale = sums.type.scale
    power = 10**scale
    low, high = np.frombuffer(sums.buffers()[1], np.int64).reshape(-1, 2).T
    exact = (high == low >> 63) & (np.abs(low) <= EXACT) & (low != np.iinfo(np.int64).min)
    found = np.where(exact, low, 0) / power
    for number in np.flatnonzero(~exact).tolist():
        value = sums[number].as_py()
        if value is not None:
            whole = int(value.scaleb(scale))
            # It divides towards zero, as C++ does.
            high_part, low_part = divmod(abs(whole), power)
            found[number] = (-1.0 if whole < 0 else 1.0) * (float(high_part) + float(low_part) / power)
    return found


def _moments(layout: Layout, feature: Feature, of: Mapping[str, Any]) -> "pa.Array":
    """Mean or standard deviation."""
    import pyarrow as pa

    numbers = of["numbers"][:, 0]
    _, sums = _total(layout, feature, "sum", of)
    total = _doubles(sums)
    if feature.function == "avg":
        return pa.array(total / np.maximum(numbers, 1), mask=numbers == 0)
    squares = _doubles(_total(layout, feature, "squares", of)[1])
    spread = numbers * squares - total**2
    several = np.maximum(numbers, 2)
    value = np.sqrt(np.maximum(0, spread / (several.astype(float) * (several - 1))))
    return pa.array(value, mask=numbers < 2)


def _distinct(offsets: "Numbers", hashes: "Numbers") -> "pa.Array":
    import pyarrow as pa

    found = np.diff(offsets)
    full = np.flatnonzero(found >= SKETCH)
    greatest = hashes[offsets[full] + SKETCH - 1]
    found[full] = np.floor((SKETCH - 1) * 2.0**63 / greatest + 0.5)
    return pa.array(found)
