"""The aggregates of one stream of a view, at all moments that a spine asks for.

Data flow: spine -> entities and moments; rows (and tiles) of those entities -> intervals -> nodes -> values, part by
part where values are lists, which DuckDB cannot spill while it makes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from recsys_data.contracts.features.functions import State, value_of
from recsys_data.contracts.features.view import FeatureView, Source, keys
from recsys_data.features import segment_tree
from recsys_data.features.intervals import Tiling
from recsys_data.features.rows import IDENTITIES, owned, rows
from recsys_data.features.tiles import Plan
from recsys_data.features.workspace import Workspace
from recsys_data.sql import quote

# Elements of lists that the moments of one part may have: about 200 MB.
ELEMENTS = 10_000_000


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
    """What a join reads, as its caller gave it; `commit`: whether it matters when rows were known.

    Attributes:
        whole: all rows of sources of which `relations` has only those that can count.
    """

    sources: Mapping[str, Source]
    relations: Mapping[str, str]
    commit: bool
    tiles: Mapping[tuple[str, str], Tiles]
    whole: Mapping[str, str]


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
) -> tuple[str, str]:
    """Compute the aggregates over one stream.

    Returns:
        Names of two tables: the values (m, k, #FEATURE ...), k being the span and only its features being set; and
        (e, t), from when on anything was known of an entity.
    """
    needed, own = planned.needed(), f"{view.name} {name}"
    parts = [_rows(work, inputs, view, name, planned, asked)]
    if (view.name, name) in inputs.tiles:
        parts.append(_tiles(work, inputs, view, name, planned, asked))
    known = " UNION ALL ".join(part.known for part in parts)
    flags = work.create(
        f"{own} known", f'SELECT e, min(t) AS t FROM ({known}) WHERE "#until" IS NULL OR t < "#until" GROUP BY e'
    )
    values = ", ".join(
        f"CASE WHEN k = {planned.span_of[one.name]} THEN {value_of(one, planned.columns(one), kind)} END "
        f"AS {quote(f'#{one.name}')}"
        for one, kind in planned.features.items()
    )
    size = max(1, ELEMENTS // max(1, sum(state.elements * len(spans) for state, spans in needed.items())))
    size = size if any(state.elements for state in needed) else 2**62
    ((total,),) = work.connection.execute(f"SELECT count(*) FROM {asked.moments}").fetchall()
    for first in range(0, max(total, 1), size):
        moments = work.create(f"{own} part", segment_tree.numbered(asked.moments, first, first + size))
        gathered = " UNION ALL ".join(part.gathered(moments, needed, size < total) for part in parts)
        nodes = work.create(f"{own} nodes", segment_tree.nodes(gathered, moments, list(needed)))
        states = segment_tree.answers(nodes, moments, list(needed))
        work.create(f"{own} values", f"SELECT m, k, {values} FROM ({states})", append=True)
        work.drop(f"{own} part", f"{own} nodes")
    work.drop(*(part.name for part in parts))
    return work.table(f"{own} values"), flags


@dataclass(frozen=True)
class _Pieces:
    """Rows or tiles of the entities.

    Attributes:
        name: of their table in the workspace.
        table: the same as SQL spells it.
        spans: (span, lo, hi): SQL of the intervals in which they count.
        at: SQL of the moment that they refer to.
        merge: whether they hold states.
        known: SQL of (e, t, #until): from when on they were known of.
        near: SQL condition on the interval that is false for most pieces that count at no moment; empty: there is none.
    """

    name: str
    table: str
    spans: Sequence[tuple[int, str, str]]
    at: str
    merge: bool
    known: str
    near: str = ""

    def gathered(self, moments: str, needed: Mapping[State, Sequence[int]], partly: bool) -> str:
        """SQL of what counts at these moments; `partly`: they are not all."""
        some = f"WHERE e BETWEEN (SELECT min(e) FROM {moments}) AND (SELECT max(e) FROM {moments})" if partly else ""
        ranged = segment_tree.ranges(f"SELECT * FROM {self.table} {some}", self.spans, moments, self.near)
        return segment_tree.gathered(ranged, needed, self.at, self.merge)


def _rows(work: Workspace, inputs: Inputs, view: FeatureView, name: str, planned: Plan, asked: Asked) -> _Pieces:
    source = inputs.sources[name]
    query = rows(view, source, inputs.relations[name], planned.needed())
    made = f"{view.name} {name} rows"
    table = work.create(made, _of_entities(work, inputs, view, source, query, asked))
    given = inputs.tiles.get((view.name, name))
    spans = [
        (k, lo, hi)
        for k, span in enumerate(planned.spans)
        for lo, hi in (span.of_row_beside(given.tiling(view.hop)) if given else [span.of_row()])
    ]
    first = 'greatest("#ts" + 1, "#known", "#since")' if inputs.commit else 'greatest("#ts" + 1, "#since")'
    known = table
    if name in inputs.whole:
        known = f"({_of_entities(work, inputs, view, source, rows(view, source, inputs.whole[name], ()), asked)})"
    near = ""
    if given:
        # Beside tiles, rows count within a hop only, and those of most hops never.
        hops = work.create(f"{made} hops", f"SELECT DISTINCT t // {view.hop} AS hop FROM {asked.moments}")
        near = segment_tree.near(f"FROM {hops}", view.hop)
    return _Pieces(made, table, spans, '"#ts"', False, f'SELECT e, {first} AS t, "#until" FROM {known}', near)


def _tiles(work: Workspace, inputs: Inputs, view: FeatureView, name: str, planned: Plan, asked: Asked) -> _Pieces:
    given = inputs.tiles[view.name, name]
    tiling = given.tiling(view.hop)
    first = "epoch_us(known_from)" if inputs.commit else "epoch_us(first_ts) + 1"
    query = f"""SELECT * EXCLUDE (tile_ts, known_ts, first_ts, known_from), epoch_us(tile_ts) AS "#tile",
        epoch_us(known_ts) AS "#known", {first} AS "#from" FROM ({given.query})
        WHERE epoch_us(known_ts) + {view.hop} <= {tiling.until}"""
    made = f"{view.name} {name} tiles"
    table = work.create(made, _of_entities(work, inputs, view, inputs.sources[name], query, asked))
    spans = [(k, *span.of_tile(tiling)) for k, span in enumerate(planned.spans)]
    known = f'SELECT e, greatest("#from", "#since") AS t, "#until" FROM {table}'
    return _Pieces(made, table, spans, f'"#tile" + {view.hop}', True, known)


def _of_entities(work: Workspace, inputs: Inputs, view: FeatureView, source: Source, query: str, asked: Asked) -> str:
    merged = work.table("merges") if IDENTITIES in inputs.relations else None
    whose = ", ".join(map(quote, keys(view, source)))
    return f"""SELECT * EXCLUDE ({whose}, "#e"), "#e" AS e FROM ({owned(view, source, query, merged)})
        JOIN {asked.entities} USING ({", ".join(map(quote, view.entity))})"""
