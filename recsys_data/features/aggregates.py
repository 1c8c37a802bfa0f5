"""The aggregates of one stream of a view, at all moments that a spine asks for.

Data flow: spine -> entities and moments; rows (and tiles) of those entities with their intervals -> batches of Arrow ->
`merging` -> values, for as many moments at a time as fit into memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from recsys_data.contracts.features.functions import State, value_of
from recsys_data.contracts.features.view import FeatureView, Source, keys
from recsys_data.features.intervals import FOREVER, Tiling, beside
from recsys_data.features.rows import ALWAYS, owned, rows
from recsys_data.features.tiles import Plan
from recsys_data.features.workspace import Workspace
from recsys_data.sql import quote

if TYPE_CHECKING:
    import pyarrow as pa

# Values and elements of lists that the moments of one part may have: about 200 MB.
ELEMENTS = 6_000_000
# Rows or tiles that are in memory at once, beside what DuckDB holds.
BATCH_ROWS = 500_000


@dataclass(frozen=True)
class Tiles:
    """Tiles of one source of a view, made by `tiles.tiles`.

    Attributes:
        query: SQL of the tiles.
        until: the moment up to which they hold all that was known; later rows are read from the source.
    """

    query: str
    until: datetime

    def tiling(self, hop: int) -> Tiling:
        return Tiling(hop, round(self.until.timestamp() * 1_000_000))


@dataclass(frozen=True)
class Inputs:
    """What a join reads, as its caller gave it.

    Attributes:
        commit: whether it matters when rows were known.
        whole: all rows of sources of which `relations` has only those that can count.
        flags: whether it is asked for from when on anything was known.
        merged: name of a table of `rows.merges`, or None if nobody was merged.
    """

    sources: Mapping[str, Source]
    relations: Mapping[str, str]
    commit: bool
    tiles: Mapping[tuple[str, str], Tiles]
    whole: Mapping[str, str]
    flags: bool = True
    merged: str | None = None


@dataclass(frozen=True)
class Asked:
    """Names of tables: what a spine asks of the entities of a view.

    Attributes:
        entities: keys, and the number `#e` of the entity.
        moments: (e, m, t): distinct moments, numbered from 0 by entity and time.
        rows: (#row, e, m, t): the rows of the spine that ask for them.
    """

    entities: str
    moments: str
    rows: str


def ask(work: Workspace, view: FeatureView) -> Asked:
    """Number the entities and moments of the spine, once for all views of the same entity."""
    spine, whose = work.table("spine"), "/".join(view.entity)
    entity = ", ".join(map(quote, view.entity))
    there = " AND ".join(f"{quote(key)} IS NOT NULL" for key in (*view.entity, "#t"))
    entities = work.create(
        f"entities {whose}",
        f'SELECT *, row_number() OVER () AS "#e" FROM (SELECT DISTINCT {entity} FROM {spine} WHERE {there})',
    )
    # Spines may have any columns; none begins with #.
    keyed = f'SELECT "#row", "#e", "#t" FROM {spine} JOIN {entities} USING ({entity}) WHERE {there}'
    moments = work.create(
        f"moments {whose}",
        f"""SELECT e, t, row_number() OVER () - 1 AS m
        FROM (SELECT DISTINCT "#e" AS e, "#t" AS t FROM ({keyed}) ORDER BY e, t)""",
    )
    found = work.create(
        f"asked {whose}",
        f"""SELECT "#row", e, m, t FROM ({keyed}) JOIN {moments} ON "#e" = e AND "#t" = t""",
    )
    return Asked(entities, moments, found)


def compute(
    work: Workspace, inputs: Inputs, view: FeatureView, name: str, planned: Plan, asked: Asked
) -> tuple[str, str | None]:
    """Compute the aggregates over one stream.

    Returns:
        Names of two tables: the values (m, #FEATURE ...); and, if it is asked for, (e, t), from when on anything was
        known of an entity.
    """
    needed, own = planned.needed(), f"{view.name} {name}"
    parts = [_rows(work, inputs, view, name, planned, asked)]
    if (view.name, name) in inputs.tiles:
        parts.append(_tiles(work, inputs, view, name, planned, asked))
    flags = None
    if inputs.flags:
        known = " UNION ALL ".join(part.known for part in parts)
        flags = work.create(
            f"{own} known", f'SELECT e, min(t) AS t FROM ({known}) WHERE "#until" IS NULL OR t < "#until" GROUP BY e'
        )
    values = ", ".join(f"{sql} AS {quote(f'#{name}')}" for name, sql in values_of(planned).items())
    size = max(1, ELEMENTS // sum(max(1, state.elements) * len(spans) for state, spans in needed.items()))
    ((total,),) = work.connection.execute(f"SELECT count(*) FROM {asked.moments}").fetchall()
    for first in range(0, max(total, 1), size):
        merged = _merge(work, asked.moments, first, first + size, parts, needed)
        work.create(f"{own} values", f"SELECT m, {values} FROM given", append=True, given=merged)
    work.drop(*(part.name for part in parts))
    return work.table(f"{own} values"), flags


def values_of(planned: Plan, prefix: str = "") -> dict[str, str]:
    """Feature -> SQL of its value over the merged states, whose columns are named by `prefix` and `column_of`."""
    found = {}
    for one, kind in planned.features.items():
        span = planned.span_of[one.name]
        columns = {}
        for what, state in planned.states[one.name].items():
            name = quote(prefix + column_of(span, state))
            columns[what] = f"CAST({name} AS {state.kind})" if state.kind else name
        found[one.name] = value_of(one, columns, kind)
    return found


def column_of(span: int, state: State) -> str:
    """The column of a state that was merged over a window."""
    return f"{span} {state.name}"


@dataclass(frozen=True)
class _Pieces:
    """Rows or tiles of the entities.

    Attributes:
        name: of their table in the workspace.
        table: the same as SQL spells it.
        spans: (span, lo, hi): SQL of the intervals in which they count.
        at: SQL of the moment that they refer to.
        states: SQL of each state.
        known: SQL of (e, t, #until): from when on they were known of.
    """

    name: str
    table: str
    spans: Sequence[tuple[int, str, str]]
    at: str
    states: Mapping[State, str]
    known: str

    def query(self, first: int, last: int) -> str:
        """SQL of those of some entities: `e`, `at`, each `lo` and `hi`, each state and its key."""
        columns = {"e": "e", "at": self.at}
        for _, lo, hi in self.spans:
            columns |= {lo: lo, hi: f"coalesce({hi}, {FOREVER})"}
        for state, sql in self.states.items():
            value = f"CAST({sql} AS {state.kind})" if state.kind else sql
            columns |= {state.name: value, f"{state.name} key": state.key.format(s=value)}
        listed = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
        return f"SELECT {listed} FROM {self.table} WHERE e BETWEEN {first} AND {last}"


def _merge(
    work: Workspace,
    moments: str,
    first: int,
    end: int,
    parts: Sequence[_Pieces],
    needed: Mapping[State, Sequence[int]],
) -> "pa.Table":
    """The states at the moments of these numbers: `m` and a column for each state and span."""
    import numpy as np
    import pyarrow as pa

    from recsys_data.features.merging import Moments, add, merged

    query = f"SELECT e, t FROM {moments} WHERE m >= {first} AND m < {end} ORDER BY m"
    entities, times = (column.to_numpy() for column in work.connection.sql(query).to_arrow_table().columns)
    asked = Moments(entities, times)
    found = {}
    whose = (int(entities[0]), int(entities[-1])) if len(entities) else (0, -1)
    rows = min(BATCH_ROWS, max(1, ELEMENTS // max(1, *(state.elements for state in needed))))
    for part in parts:
        reader = work.connection.sql(part.query(*whose)).to_arrow_reader(rows)
        for state in needed:
            found.setdefault(state, merged(state, asked, reader.schema.field(state.name).type))
        for batch in reader:
            add(batch, part.spans, asked, needed, found)
    columns = {column_of(span, state): found[state].result(span) for state, spans in needed.items() for span in spans}
    return pa.table({"m": np.arange(first, first + asked.count), **columns})


def _rows(work: Workspace, inputs: Inputs, view: FeatureView, name: str, planned: Plan, asked: Asked) -> _Pieces:
    source = inputs.sources[name]
    query = rows(view, source, inputs.relations[name], planned.needed())
    made = f"{view.name} {name} rows"
    given = inputs.tiles.get((view.name, name))
    if given:
        query = f"SELECT * FROM ({query}) WHERE {beside(planned.spans, given.tiling(view.hop), asked.moments)}"
    table = _create(work, inputs, view, source, made, query, asked)
    spans = [
        (k, lo, hi)
        for k, span in enumerate(planned.spans)
        for lo, hi in (span.of_row_beside(given.tiling(view.hop)) if given else [span.of_row()])
    ]
    first = 'greatest("#ts" + 1, "#known", "#since")' if inputs.commit else 'greatest("#ts" + 1, "#since")'
    known = table
    if name in inputs.whole:
        known = f"({_of_entities(inputs, view, source, rows(view, source, inputs.whole[name], ()), asked)})"
    states = {state: state.of_row for state in planned.needed()}
    return _Pieces(made, table, spans, '"#ts"', states, f'SELECT e, {first} AS t, "#until" FROM {known}')


def _tiles(work: Workspace, inputs: Inputs, view: FeatureView, name: str, planned: Plan, asked: Asked) -> _Pieces:
    given = inputs.tiles[view.name, name]
    tiling = given.tiling(view.hop)
    states = {state: quote(state.name) for state in planned.needed()}
    columns = {'"#tile"': "epoch_us(tile_ts)"}
    if inputs.commit:
        columns['"#known"'] = "epoch_us(known_ts)"
    if inputs.flags:
        columns['"#from"'] = "epoch_us(known_from)" if inputs.commit else "epoch_us(first_ts) + 1"
    listed = ", ".join([*map(quote, keys(view, inputs.sources[name])), *states.values()])
    query = f"""SELECT {listed}, {", ".join(f"{sql} AS {column}" for column, sql in columns.items())}
        FROM ({given.query}) WHERE epoch_us(known_ts) + {view.hop} <= {tiling.until}"""
    made = f"{view.name} {name} tiles"
    table = _create(work, inputs, view, inputs.sources[name], made, query, asked)
    spans = [(k, *span.of_tile(tiling)) for k, span in enumerate(planned.spans)]
    known = f'SELECT e, greatest("#from", "#since") AS t, "#until" FROM {table}'
    return _Pieces(made, table, spans, f'"#tile" + {view.hop}', states, known)


def _create(
    work: Workspace, inputs: Inputs, view: FeatureView, source: Source, name: str, query: str, asked: Asked
) -> str:
    """Make a table of the rows or tiles of the entities; returns SQL that stands for it."""
    sql = _of_entities(inputs, view, source, query, asked)
    if inputs.merged is not None:
        return work.create(name, sql)
    # Columns of nothing would take memory.
    table = work.create(name, f'SELECT * EXCLUDE ("#since", "#until") FROM ({sql})')
    return f"(SELECT *, {ALWAYS} FROM {table})"


def _of_entities(inputs: Inputs, view: FeatureView, source: Source, query: str, asked: Asked) -> str:
    whose = ", ".join(map(quote, keys(view, source)))
    return f"""SELECT * EXCLUDE ({whose}, "#e"), "#e" AS e FROM ({owned(view, source, query, inputs.merged)})
        JOIN {asked.entities} USING ({", ".join(map(quote, view.entity))})"""
