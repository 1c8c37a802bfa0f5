"""The point-in-time join: each row of a spine with the features of its entities as they were known at its moment.

Data flow: spine -> entities and moments -> for each stream of each view: rows (and tiles) -> intervals -> states at
each moment -> one SELECT that adds histories, flags and expressions to the spine. Tables are temporary ones of the
session, which spill to its `temp_directory`; only `merging` fetches rows, batch by batch.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from recsys_data.contracts.features.check import Resolved, resolve
from recsys_data.contracts.features.expressions import REQUEST, TIMESTAMP, renamed
from recsys_data.contracts.features.functions import FUNCTIONS
from recsys_data.contracts.features.view import Feature, FeatureView, Source, over_histories
from recsys_data.errors import UserError
from recsys_data.features.aggregates import Inputs, Tiles, ask, compute
from recsys_data.features.embeddings import embedded, require_extra
from recsys_data.features.histories import windows
from recsys_data.features.rows import IDENTITIES, merges
from recsys_data.features.tiles import plan
from recsys_data.features.workspace import Workspace
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb

COMMIT, EVENT_TIME = "commit", "event_time"
ORDER = ' ORDER BY "#row"'
# Rows of a spine up to which one statement joins and sorts: it takes less time, but the memory of both at once.
LONG = 3_000_000
_joins = itertools.count()


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
    whole: Mapping[str, str] | None = None,
    values_only: bool = False,
) -> "duckdb.DuckDBPyRelation":
    """Exactly the rows of a spine, in their order, with the features of views as columns `VIEW__FEATURE`.

    A row sees the events before its moment, never those at it, and what was known at it. Where nothing was, counts are
    0, everything else is NULL, and `VIEW__known` is false.

    Args:
        connection: a session in UTC that can read the spine and the relations; its configuration is not locked.
        spine: rows with the keys of all views and a moment; a row whose key or moment is NULL knows nothing.
        views: with different names.
        sources: name -> what the views read.
        relations: name of a source -> SQL of its rows; `identities` -> SQL with `anonymous_id`, `user_id`, `known_at`.
        known: `commit`: an event counts from the commit on that made it known; `event_time`: from when it happened
            on, which is meant for imported history.
        timestamp: column of the moment in the spine.
        tiles: (view, source) -> tiles that stand for most of its rows.
        whole: SQL of all rows of those sources of which `relations` gives only the rows that can count; only whether
            anything was known is read from it.
        values_only: rows come in any order and without `VIEW__known`, which takes less time.

    Returns:
        A relation over temporary tables of the session, which live as long as the session.

    Raises:
        UserError: a view has problems, the spine lacks a column, its moment is not
            a timestamp, or the states of a history overlap.
    """
    if known not in (COMMIT, EVENT_TIME):
        raise UserError(f"known is {known!r}; choose {COMMIT} or {EVENT_TIME}.")
    views = [over_histories(view, sources) for view in views]
    resolved = {view.name: resolve(view, sources) for view in views}
    require_extra(views)
    _check_spine(spine, views, timestamp)
    work = Workspace(connection, f"#join{next(_joins)}")
    inputs = Inputs(sources, relations, known == COMMIT, tiles or {}, whole or {}, not values_only)
    select = _Select(list(spine.columns), {f"{REQUEST}.{name.lower()}": name for name in spine.columns})
    select.request[f"{REQUEST}.{TIMESTAMP}"] = timestamp
    # Rows must keep their order until they are numbered; afterwards keeping it only costs memory.
    settings = "SELECT current_setting('preserve_insertion_order'), current_setting('arrow_lossless_conversion')"
    ((kept, lossless),) = connection.execute(settings).fetchall()
    try:
        connection.execute("SET arrow_lossless_conversion = true")
        connection.execute("SET preserve_insertion_order = true")
        numbered = f'SELECT row_number() OVER () AS "#row", epoch_us({quote(timestamp)}) AS "#t", * FROM spine'
        spine.query("spine", f"CREATE TEMP TABLE {work.table('spine')} AS {numbered}")
        connection.execute("SET preserve_insertion_order = false")
        _compute(work, select, inputs, views, resolved)
        sql = select.sql(work.table("spine"))
        rows = f"({sql})"
        ((length,),) = connection.execute(f"SELECT count(*) FROM {work.table('spine')}").fetchall()
        if not values_only and length > LONG:
            rows = work.create("joined", sql)
            work.drop_all_but("joined")
    finally:
        connection.execute(f"SET preserve_insertion_order = {kept}; SET arrow_lossless_conversion = {lossless}")
    return connection.sql(f'SELECT * EXCLUDE ("#row") FROM {rows}{"" if values_only else ORDER}')


def _compute(
    work: Workspace, select: "_Select", inputs: Inputs, views: Sequence[FeatureView], resolved: Mapping[str, Resolved]
) -> None:
    if IDENTITIES in inputs.relations:
        merged = work.create("merges", merges(inputs.relations[IDENTITIES]))
        ((some,),) = work.connection.execute(f"SELECT count(*) FROM {merged}").fetchall()
        inputs = replace(inputs, merged=merged if some else None)
    for number, view in enumerate(views):
        _add_view(work, select, inputs, view, resolved[view.name], f"v{number}")


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
        return f'SELECT "#row", {", ".join(map(quote, [*self.spine, *self.output]))} FROM ({outer})'


def _check_spine(spine: "duckdb.DuckDBPyRelation", views: Sequence[FeatureView], timestamp: str) -> None:
    there = {name.lower() for name in spine.columns}
    for view in views:
        for name in (*view.entity, timestamp, *view.request):
            if name.lower() not in there:
                raise UserError(
                    f"The spine has no column {name}, which {view.name} needs; it has {', '.join(spine.columns)}."
                )
    kind = str(spine.types[[name.lower() for name in spine.columns].index(timestamp.lower())])
    if not kind.startswith(("TIMESTAMP", "DATE")):
        raise UserError(f"The column {timestamp} of the spine is {kind}; cast it to a timestamp.")
    columns = [*there, *(f"{view.name}__{name}".lower() for view in views for name in _names(view))]
    if twice := {name for name in columns if columns.count(name) > 1}:
        raise UserError(f"The columns {', '.join(sorted(twice))} would come twice; rename them in the spine.")


def _names(view: FeatureView) -> list[str]:
    return [*(one.name for one in view.features), "known"]


def _add_view(
    work: Workspace, select: _Select, inputs: Inputs, view: FeatureView, resolved: Resolved, alias: str
) -> None:
    flags = []
    if any(one.function for one in view.features):
        select.joins.append(f'LEFT JOIN {ask(work, view).rows} {alias} ON {alias}."#row" = s."#row"')
    for number, name in enumerate(dict.fromkeys(view.source_of(one) for one in view.features if not one.expression)):
        source, own = inputs.sources[name], f"{alias}_{number}"
        planned = plan(view, name, source, resolved, inputs.commit)
        if planned.features:
            answers, known = compute(work, inputs, view, name, planned, ask(work, view))
            select.joins.append(f"LEFT JOIN {answers} {own} ON {own}.m = {alias}.m")
            if known:
                select.joins.append(f"LEFT JOIN {known} {own}_f ON {own}_f.e = {alias}.e")
                flags.append(f"coalesce({alias}.t >= {own}_f.t, false)")
            for feature in planned.features:
                value = f"{own}.{quote(f'#{feature.name}')}"
                empty = FUNCTIONS[feature.function or ""].empty
                select.values[f"{view.name}__{feature.name}"] = f"coalesce({value}, {empty})" if empty else value
        if taken := [one for one in view.features if (one.is_state or one.over_states) and view.source_of(one) == name]:
            flags.append(_add_history(work, select, view, taken, name, source, inputs.relations[name], own, alias))
    names = {**select.request, **{one.name.lower(): f"{view.name}__{one.name}" for one in view.features}}
    declared = {one.name: one.expression or "" for one in view.features}
    for name in resolved.expressions:
        select.expressions[f"{view.name}__{name}"] = renamed(work.connection, declared[name], names)
    select.output += [f"{view.name}__{one.name}" for one in view.features]
    if inputs.flags:
        select.values[f"{view.name}__known"] = " OR ".join(flags) or "false"
        select.output.append(f"{view.name}__known")


def _add_history(
    work: Workspace,
    select: _Select,
    view: FeatureView,
    taken: Sequence[Feature],
    name: str,
    source: Source,
    relation: str,
    alias: str,
    moments: str,
) -> str:
    """Join what was valid; returns SQL of whether anything was, without a delay."""
    begins, ends = map(quote, source.valid or ("", ""))
    there = " AND ".join(f"{name} IS NOT NULL" for name in [begins, *map(quote, view.entity)])
    query = f"SELECT * FROM ({relation}) WHERE {there}"
    keys = ", ".join(map(quote, view.entity))
    overlap = work.connection.execute(
        f"""SELECT {keys} FROM (SELECT {keys}, {ends} AS ends,
        lead({begins}) OVER (PARTITION BY {keys} ORDER BY {begins}, {ends}) AS next FROM ({query}))
        WHERE next IS NOT NULL AND (ends IS NULL OR ends > next) LIMIT 1"""
    ).fetchall()
    if overlap:
        raise UserError(f"Two rows of {name} are valid at once for {overlap[0]}; repair the history, e.g. rebuild it.")
    texts = "".join(f", ({one.column}) AS {quote(f'#{one.name}')}" for one in taken if one.embedding)
    states = f"""SELECT *, epoch_us({begins}) AS "#from", coalesce(epoch_us({ends}), {2**62}) AS "#to"{texts}
        FROM ({query})"""
    for delay in dict.fromkeys([0, *(one.delay for one in taken if one.is_state)]):
        own, cutoff = f"{alias}_h{delay}", f's."#t" - {delay}'
        same = " AND ".join(f"{own}.{quote(key)} = s.{quote(key)}" for key in view.entity)
        select.joins.append(
            f"""LEFT JOIN ({states}) {own}
            ON {same} AND {cutoff} >= {own}."#from" AND {cutoff} < {own}."#to\""""
        )
    for number, feature in enumerate(taken):
        column = f"{alias}_h{feature.delay}.{quote(feature.column or '')}"
        if feature.embedding:
            text, own = quote(f"#{feature.name}"), f"{alias}_e{number}"
            asked = f"SELECT {text} FROM ({states}) SEMI JOIN {work.table('spine')} USING ({keys})"
            table = embedded(work, f"{alias} {feature.name}", feature.embedding, asked)
            select.joins.append(f"LEFT JOIN {table} {own} ON {own}.text = {alias}_h{feature.delay}.{text}")
            column = f"{own}.value::DOUBLE[]"
        select.values[f"{view.name}__{feature.name}"] = column
    if over := [one for one in taken if one.over_states]:
        for number, (feature, table) in enumerate(windows(work, view, over, states, ask(work, view), alias).items()):
            select.joins.append(f"LEFT JOIN {table} {alias}_w{number} ON {alias}_w{number}.m = {moments}.m")
            select.values[f"{view.name}__{feature}"] = f"{alias}_w{number}.value"
    return f'{alias}_h0."#from" IS NOT NULL'
