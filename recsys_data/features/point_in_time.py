"""The point-in-time join: each row of a spine with the features of its entities as they were known at its moment.

Data flow: spine -> entities and moments -> for each stream of each view: rows (and tiles) -> intervals -> nodes ->
states at each moment -> one SELECT that adds histories, flags and expressions to the spine. Everything is SQL in
temporary tables of the session, which spill to its `temp_directory`; nothing is fetched.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from recsys_data.errors import UserError
from recsys_data.features import segment_tree
from recsys_data.features.check import Resolved, resolve
from recsys_data.features.expressions import REQUEST, TIMESTAMP, renamed
from recsys_data.features.functions import value_of
from recsys_data.features.intervals import Tiling
from recsys_data.features.rows import IDENTITIES, merges, owned, rows
from recsys_data.features.tiles import Plan, plan
from recsys_data.features.view import FeatureView, Source
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb

COMMIT, EVENT_TIME = "commit", "event_time"
_joins = itertools.count()


@dataclass(frozen=True)
class Tiles:
    """Tiles of one source of a view, made by `tiles.tiles`.

    Attributes:
        query: SQL of the tiles.
        until: the moment up to which they hold all that was known; later rows are read from the source.
    """

    query: str
    until: datetime


def join(
    connection: "duckdb.DuckDBPyConnection",
    spine: "duckdb.DuckDBPyRelation",
    views: Sequence[FeatureView],
    sources: Mapping[str, Source],
    relations: Mapping[str, str],
    *,
    known: str = COMMIT,
    timestamp: str = TIMESTAMP,
    tiles: Mapping[tuple[str, str], Tiles] | None = None,
) -> "duckdb.DuckDBPyRelation":
    """Exactly the rows of a spine, in their order, with the features of views as columns `VIEW__FEATURE`.

    A row sees the events before its moment, never those at it, and what was known at it. Where nothing was, counts are
    0, everything else is NULL, and `VIEW__known` is false.

    Args:
        connection: a session in UTC, in which the spine and the relations can be read.
        spine: rows with the keys of all views and a moment; a row whose key or moment is NULL knows nothing.
        views: with different names.
        sources: name -> what the views read.
        relations: name of a source -> SQL of its rows; `identities` -> SQL with `anonymous_id`, `user_id`, `known_at`.
        known: `commit`: an event counts from the commit on that made it known; `event_time`: from when it happened
            on, which is meant for imported history.
        timestamp: column of the moment in the spine.
        tiles: (view, source) -> tiles that stand for most of its rows.

    Returns:
        A lazy relation over temporary tables of the session, which live as long as the session.

    Raises:
        UserError: a view has problems, the spine lacks a column, or the states of a history overlap.
    """
    if known not in (COMMIT, EVENT_TIME):
        raise UserError(f"known is {known!r}; choose {COMMIT} or {EVENT_TIME}.")
    resolved = {view.name: resolve(view, sources) for view in views}
    _check_spine(spine, views, timestamp)
    work = _Work(connection, f"#join{next(_joins)}", sources, relations, known == COMMIT, tiles or {})
    spine.query(
        "spine", f'CREATE TEMP TABLE {work.table("spine")} AS SELECT row_number() OVER () AS "#row", * FROM spine'
    )
    work.execute('ALTER TABLE {0} ADD COLUMN "#t" BIGINT', "spine")
    work.execute(f'UPDATE {{0}} SET "#t" = epoch_us({quote(timestamp)})', "spine")
    if IDENTITIES in relations:
        work.create("merges", merges(relations[IDENTITIES]))
    select = _Select(list(spine.columns), {f"{REQUEST}.{name.lower()}": name for name in spine.columns})
    select.request[f"{REQUEST}.{TIMESTAMP}"] = timestamp
    for number, view in enumerate(views):
        _add_view(work, select, view, resolved[view.name], number)
    return connection.sql(select.sql(work.table("spine")))


@dataclass
class _Select:
    """The last statement: what is joined to the spine, and what is computed from it.

    Attributes:
        spine: columns of the spine.
        request: `request.NAME` -> column of the spine.
        joins: JOIN clauses, the spine being `s`.
        values: column -> SQL over the joined tables.
        expressions: column -> SQL over the values and the columns of the spine, in the order of evaluation.
        output: columns in the order of the views.
    """

    spine: list[str]
    request: dict[str, str]
    joins: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    expressions: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)

    def sql(self, spine: str) -> str:
        def listed(columns: Mapping[str, str]) -> str:
            return "".join(f", {sql} AS {quote(name)}" for name, sql in columns.items())

        inner = f"SELECT s.*{listed(self.values)} FROM {spine} s {' '.join(self.joins)}"
        outer = f"SELECT *{listed(self.expressions)} FROM ({inner})"
        return f'SELECT {", ".join(map(quote, [*self.spine, *self.output]))} FROM ({outer}) ORDER BY "#row"'


@dataclass
class _Work:
    """The session and the temporary tables of one join."""

    connection: "duckdb.DuckDBPyConnection"
    prefix: str
    sources: Mapping[str, Source]
    relations: Mapping[str, str]
    commit: bool
    tiles: Mapping[tuple[str, str], Tiles]
    made: set[str] = field(default_factory=set)

    def table(self, name: str) -> str:
        return quote(f"{self.prefix} {name}")

    def execute(self, sql: str, *names: str) -> None:
        self.connection.execute(sql.format(*map(self.table, names)))

    def create(self, name: str, sql: str) -> str:
        """Make a table once; returns its quoted name."""
        if name not in self.made:
            self.connection.execute(f"CREATE TEMP TABLE {self.table(name)} AS {sql}")
            self.made.add(name)
        return self.table(name)

    def drop(self, *names: str) -> None:
        for name in names:
            self.connection.execute(f"DROP TABLE {self.table(name)}")
            self.made.remove(name)


def _check_spine(spine: "duckdb.DuckDBPyRelation", views: Sequence[FeatureView], timestamp: str) -> None:
    there = {name.lower() for name in spine.columns}
    for view in views:
        for name in (*view.entity, timestamp, *view.request):
            if name.lower() not in there:
                raise UserError(
                    f"The spine has no column {name}, which {view.name} needs; it has {', '.join(spine.columns)}."
                )
    columns = [*there, *(f"{view.name}__{name}".lower() for view in views for name in _names(view))]
    if twice := {name for name in columns if columns.count(name) > 1}:
        raise UserError(f"The columns {', '.join(sorted(twice))} would come twice; rename them in the spine.")


def _names(view: FeatureView) -> list[str]:
    return [*(one.name for one in view.features), "known"]


def _add_view(work: _Work, select: _Select, view: FeatureView, resolved: Resolved, number: int) -> None:
    moments = f"moments {'/'.join(view.entity)}"
    _ask(work, view, moments)
    asked = f"v{number}"
    select.joins.append(f'LEFT JOIN {work.table("asked" + moments)} {asked} ON {asked}."#row" = s."#row"')
    flags = []
    for name in dict.fromkeys(view.source_of(one) for one in view.features if one.expression is None):
        source = work.sources[name]
        planned = plan(view, name, source, resolved, work.commit)
        alias = f"{asked}_{len(flags)}"
        if planned.features:
            flags.append(_add_stream(work, select, view, name, planned, resolved, moments, asked, alias))
        if any(view.source_of(one) == name and _is_state(one) for one in view.features):
            flags.append(_add_history(work, select, view, name, f"{alias}h"))
    select.values[f"{view.name}__known"] = " OR ".join(flags) or "false"
    names = {**select.request, **{one.name.lower(): f"{view.name}__{one.name}" for one in view.features}}
    declared = {one.name: one.expression or "" for one in view.features}
    for name in resolved.expressions:
        select.expressions[f"{view.name}__{name}"] = renamed(work.connection, declared[name], names)
    select.output += [f"{view.name}__{name}" for name in _names(view)]


def _is_state(feature) -> bool:
    return feature.function is None and feature.expression is None


def _ask(work: _Work, view: FeatureView, moments: str) -> None:
    """Number the entities of the spine, and the moments at which each is asked for."""
    if moments in work.made:
        return
    keys = ", ".join(map(quote, view.entity))
    there = " AND ".join(f"{quote(key)} IS NOT NULL" for key in (*view.entity, "#t"))
    entities = work.create(
        f"entities {moments}",
        f"SELECT {keys}, row_number() OVER () AS e "
        f"FROM (SELECT DISTINCT {keys} FROM {work.table('spine')} WHERE {there})",
    )
    work.create(
        moments,
        f"""SELECT e, row_number() OVER () AS m, t, row_number() OVER (PARTITION BY e ORDER BY t) - 1 AS rank,
        count(*) OVER (PARTITION BY e) AS n
        FROM (SELECT DISTINCT e, "#t" AS t FROM {work.table("spine")} JOIN {entities} USING ({keys}))""",
    )
    work.create(
        f"asked{moments}",
        f"""SELECT "#row", e, m, t FROM {work.table("spine")} JOIN {entities} USING ({keys})
        JOIN {work.table(moments)} USING (e) WHERE t = "#t\"""",
    )


def _add_stream(
    work: _Work,
    select: _Select,
    view: FeatureView,
    name: str,
    planned: Plan,
    resolved: Resolved,
    moments: str,
    asked: str,
    alias: str,
) -> str:
    """Compute the aggregates over one stream; returns SQL of whether anything of it was known."""
    source, needed = work.sources[name], planned.needed()
    states = list(needed)
    entities = work.table(f"entities {moments}")
    merged = work.table("merges") if IDENTITIES in work.relations else None
    keys = ", ".join(map(quote, view.entity))

    def of_entities(relation: str) -> str:
        return f"SELECT * FROM ({owned(view, source, relation, merged)}) JOIN {entities} USING ({keys})"

    def pieces(relation: str, spans: Sequence[tuple[int, str, str]]) -> str:
        each = ", ".join(f"{{'k': {k}, 'lo': {lo}, 'hi': {hi}}}" for k, lo, hi in spans)
        listed = f"SELECT *, unnest([{each}], recursive := true) FROM {relation}"
        return segment_tree.ranges(f"SELECT * FROM ({listed}) WHERE hi IS NULL OR lo < hi", work.table(moments))

    there = tiling = None
    if (view.name, name) in work.tiles:
        first = "epoch_us(known_from)" if work.commit else "epoch_us(first_ts) + 1"
        given = work.tiles[view.name, name]
        tiling = Tiling(view.hop, round(given.until.timestamp() * 1_000_000))
        there = f"""SELECT * EXCLUDE (tile_ts, known_ts, first_ts, known_from), epoch_us(tile_ts) AS "#tile",
            epoch_us(known_ts) AS "#known", {first} AS "#from" FROM ({given.query})
            WHERE epoch_us(known_ts) + {view.hop} <= {tiling.until}"""
    work.execute(f"CREATE TEMP VIEW {{0}} AS {rows(view, source, work.relations[name], states)}", f"source {alias}")
    own = work.create(f"rows {alias}", of_entities(work.table(f"source {alias}")))
    spans = [(k, span.of_row()) for k, span in enumerate(planned.spans)]
    if tiling:
        spans = [(k, one) for k, span in enumerate(planned.spans) for one in span.of_row_beside(tiling)]
    ranged = pieces(own, [(k, lo, hi) for k, (lo, hi) in spans])
    gathered = segment_tree.gathered(ranged, needed, '"#ts"')
    first = 'greatest("#ts" + 1, "#known", "#since")' if work.commit else 'greatest("#ts" + 1, "#since")'
    known = f'SELECT e, {first} AS t, "#until" FROM {own}'
    if tiling:
        work.execute(f"CREATE TEMP VIEW {{0}} AS {there}", f"tiles {alias}")
        tiled = work.create(f"tiled {alias}", of_entities(work.table(f"tiles {alias}")))
        spans = [(k, *span.of_tile(tiling)) for k, span in enumerate(planned.spans)]
        ranged = pieces(tiled, spans)
        gathered += " UNION ALL " + segment_tree.gathered(ranged, needed, f'"#tile" + {view.hop}', merge=True)
        known += f' UNION ALL SELECT e, greatest("#from", "#since"), "#until" FROM {tiled}'
    nodes = work.create(f"nodes {alias}", segment_tree.nodes(gathered, work.table(moments), states))
    answers = work.create(f"answers {alias}", segment_tree.answers(nodes, work.table(moments), states))
    flags = work.create(
        f"flags {alias}",
        f'SELECT e, min(t) AS t FROM ({known}) WHERE "#until" IS NULL OR t < "#until" GROUP BY e',
    )
    for k in range(len(planned.spans)):
        select.joins.append(f"LEFT JOIN {answers} {alias}_{k} ON {alias}_{k}.m = {asked}.m AND {alias}_{k}.k = {k}")
    select.joins.append(f"LEFT JOIN {flags} {alias}_f ON {alias}_f.e = {asked}.e")
    for feature in planned.features:
        at = f"{alias}_{planned.span_of[feature.name]}"
        columns = {kind: f"{at}.{quote(state.name)}" for kind, state in planned.states[feature.name].items()}
        select.values[f"{view.name}__{feature.name}"] = value_of(feature, columns, resolved.arguments[feature.name])
    work.drop(f"rows {alias}", f"nodes {alias}")
    return f"coalesce({asked}.t >= {alias}_f.t, false)"


def _add_history(work: _Work, select: _Select, view: FeatureView, name: str, alias: str) -> str:
    """Join what was valid; returns SQL of whether anything of the history was, without a delay."""
    source = work.sources[name]
    begins, ends = source.valid or ("", "")
    query = f"SELECT * FROM ({work.relations[name]}) WHERE {quote(begins)} IS NOT NULL"
    keys = ", ".join(map(quote, view.entity))
    overlap = work.connection.execute(
        f"""SELECT {keys} FROM (SELECT {keys}, {quote(ends)} AS ends,
        lead({quote(begins)}) OVER (PARTITION BY {keys} ORDER BY {quote(begins)}) AS next FROM ({query}))
        WHERE next IS NOT NULL AND (ends IS NULL OR ends > next) LIMIT 1"""
    ).fetchone()
    if overlap:
        raise UserError(f"Two rows of {name} are valid at once for {overlap}; repair the history, e.g. rebuild it.")
    delays = dict.fromkeys([0, *(one.delay for one in view.features if _is_state(one) and view.source_of(one) == name)])
    for delay in delays:
        own = f"{alias}{delay}"
        same = " AND ".join(f"{own}.{quote(key)} = s.{quote(key)}" for key in view.entity)
        select.joins.append(
            f"""LEFT JOIN (SELECT *, epoch_us({quote(begins)}) AS "#from", epoch_us({quote(ends)}) AS "#to"
            FROM ({query})) {own} ON {same} AND s."#t" - {delay} >= {own}."#from"
            AND s."#t" - {delay} < coalesce({own}."#to", {2**62})"""
        )
    columns = set(source.columns)
    for feature in view.features:
        if _is_state(feature) and view.source_of(feature) == name:
            own = f"{alias}{feature.delay}"
            column = f"{own}.{quote(feature.column or '')}"
            if feature.column not in columns:
                raise UserError(f"{view.name}.{feature.name}: `{feature.column}` is not a column of {name}; name one.")
            select.values[f"{view.name}__{feature.name}"] = column
    return f'{alias}0."#from" IS NOT NULL'
