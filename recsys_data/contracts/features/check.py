"""Whether a feature view makes sense, before anything is computed.

Every problem is one sentence: what was found, what was expected, what to do. `resolve` also gives the types that the
computation needs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from cachetools import LRUCache, cached

from recsys_data.contracts.features.expressions import REQUEST, TIMESTAMP, in_order, references, request_type, types_of
from recsys_data.contracts.features.functions import FUNCTIONS, INTEGER, NUMBER, OVER_STATES
from recsys_data.contracts.features.view import (
    KINDS,
    LIFETIME,
    MODELS,
    ROLLING,
    Feature,
    FeatureView,
    Source,
    over_histories,
)
from recsys_data.contracts.rules import session
from recsys_data.contracts.sql_guard import ForbiddenSql
from recsys_data.errors import UserError
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb

MOST = 1000  # values of last_n


@dataclass(frozen=True)
class Resolved:
    """What a view turned out to be.

    Attributes:
        arguments: feature -> DuckDB type of what it aggregates or takes from a history.
        types: feature -> DuckDB type of its value.
        reads: feature -> (source, column) of all that it is computed from, but for keys.
        expressions: names of the features that are expressions, each after those that it needs.
    """

    arguments: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    reads: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()


class _Unsound(Exception):
    """A problem with one feature."""


Connect = Callable[[], "duckdb.DuckDBPyConnection"]


def check(view: FeatureView, sources: Mapping[str, Source], connect: Connect | None = None) -> list[str]:
    """The problems of a view; none if it is sound.

    Args:
        view: as declared.
        sources: by name, those of the view among them.
        connect: of `one_session`, where many views are checked.
    """
    return _examine(view, sources, connect)[0]


def resolve(view: FeatureView, sources: Mapping[str, Source]) -> Resolved:
    """The types of a sound view.

    Raises:
        UserError: it has problems; the message lists them.
    """
    problems, resolved = _examine(view, sources)
    if problems:
        raise UserError(f"The feature view {view.name} cannot be computed: " + " ".join(problems))
    return resolved


@contextmanager
def one_session() -> Iterator[Connect]:
    """What gives the same session at each call: it takes longer to make than a view to check."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(session(confined=True)))


class _Sql:
    """The SQL of a view: what it refers to and what types it has.

    All at once takes a fraction of the time of one after the other, which is left for finding the fault.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection
        self._types: dict[tuple[str, str], str] = {}
        self._references: dict[str, set[str]] = {}

    def expect(self, source: str, sql: Iterable[str], columns: Mapping[str, str]) -> None:
        """Find out about SQL over one row of a source, if nothing is wrong with any of it."""
        import duckdb

        all_sql = list(dict.fromkeys(sql))
        with suppress(duckdb.Error, ForbiddenSql, RecursionError):
            if all_sql:
                self.expect_references(all_sql)
                kinds = types_of(self._connection, all_sql, columns)
                self._types |= {(source, one): kind for one, kind in zip(all_sql, kinds, strict=True)}

    def expect_references(self, sql: Iterable[str]) -> None:
        import duckdb

        some = [one for one in dict.fromkeys(sql) if one not in self._references]
        with suppress(duckdb.Error, ForbiddenSql, RecursionError):
            self._references |= zip(some, references(self._connection, some), strict=True)

    def references(self, sql: str) -> set[str]:
        return self._references[sql] if sql in self._references else references(self._connection, [sql])[0]

    def type_of(self, what: str, source: str, sql: str, columns: Mapping[str, str], allowed: str) -> str:
        import duckdb

        try:
            return self._types.get((source, sql)) or types_of(self._connection, [sql], columns)[0]
        except ForbiddenSql as refused:
            raise _Unsound(f"the {what} `{sql}` is refused: {refused}; compute from one row.") from None
        except duckdb.Error as error:
            raise _Unsound(f"the {what} `{sql}` cannot be evaluated: {_first(error)}; {allowed}.") from None


def _looked_at(view: FeatureView, sources: Mapping[str, Source], connect: Connect | None = None) -> str:
    named = sorted({view.source_of(one) for one in view.features})
    return repr((view, sorted(sources), [sources.get(name) for name in named]))


# Kept, because contracts are read again at every tick of a sensor, and hardly ever change.
@cached(LRUCache(256), key=_looked_at, lock=Lock())
def _examine(
    view: FeatureView, sources: Mapping[str, Source], connect: Connect | None = None
) -> tuple[list[str], Resolved]:
    view = over_histories(view, sources)
    problems = list(_of_view(view, sources))
    resolved = Resolved()
    with one_session() as own:
        sql = _Sql((connect or own)())
        for name in dict.fromkeys(map(view.source_of, view.features)):
            sql.expect(name, _sql_of(view, name, sources), sources[name].columns if name in sources else {})
        for feature in view.features:
            if feature.expression is not None:
                continue
            try:
                argument, kind = _aggregate(sql, view, feature, sources)
                resolved.arguments[feature.name], resolved.types[feature.name] = argument, _declared(feature, kind)
                resolved.reads[feature.name] = _reads(sql, view, feature, sources)
            except _Unsound as problem:
                problems.append(f"{view.name}.{feature.name}: {problem}")
        expressions = {one.name: one for one in view.features if one.expression is not None}
        sql.expect_references(one.expression or "" for one in expressions.values())
        ordered, unsound = _ordered(sql, view, expressions)
        problems += unsound
        # The types that they declare are those that they have, or there is a problem.
        declared = {name: kind for name in ordered if (kind := expressions[name].type)}
        columns = {**resolved.types, **declared, REQUEST: request_type(view.request)}
        sql.expect("", (expressions[name].expression or "" for name in ordered), columns)
        for name in ordered:
            try:
                kind = _expression(sql, view, expressions[name], resolved.types)
                resolved.types[name] = _declared(expressions[name], kind)
                used = sql.references(expressions[name].expression or "")
                read = [columns for one, columns in resolved.reads.items() if one.lower() in used]
                resolved.reads[name] = set().union(*read)
            except _Unsound as problem:
                problems.append(f"{view.name}.{name}: {problem}")
    return problems, replace(resolved, expressions=tuple(ordered))


def _sql_of(view: FeatureView, name: str, sources: Mapping[str, Source]) -> Iterator[str]:
    """The SQL over one row of a source."""
    columns = sources[name].columns if name in sources else {}
    for one in view.features:
        if one.expression is None and view.source_of(one) == name:
            yield from (sql for sql in (one.column, one.filter) if sql is not None and sql not in columns)


def _of_view(view: FeatureView, sources: Mapping[str, Source]) -> Iterator[str]:
    if not view.features:
        yield f"{view.name} has no features; declare at least one."
    if not view.entity:
        yield f"{view.name} has no entity; name at least one key column."
    for name, times in Counter(one.name.lower() for one in view.features).items():
        if times > 1:
            yield f"{view.name}.{name}: {times} features have this name; names must be unique, rename the others."
        if name in (REQUEST, "known"):
            yield f"{view.name}.{name}: the name is taken by the view itself; rename the feature."
    streams = dict.fromkeys(view.source_of(one) for one in view.features if one.is_aggregate)
    if len(streams) > 1:
        yield (
            f"{view.name} aggregates {' and '.join(streams)}; a view aggregates one stream, so that it has one "
            "table of tiles. Declare a view for each."
        )
    for name in dict.fromkeys(map(view.source_of, (one for one in view.features if one.expression is None))):
        for key in view.entity if name in sources else ():
            if key not in sources[name].columns:
                yield f"{view.name}: {name} has no column {key} of the entity; {_columns(sources[name])}."


def _aggregate(sql: _Sql, view: FeatureView, feature: Feature, sources: Mapping[str, Source]) -> tuple[str, str]:
    """Types of the argument and of the value of a feature that is not an expression."""
    name = view.source_of(feature)
    if name not in sources:
        raise _Unsound(f"the source {name} does not exist; choose one of {', '.join(sorted(sources))}.")
    source = sources[name]
    argument = "BOOLEAN"
    if feature.column is not None:
        argument = source.columns.get(feature.column) or sql.type_of(
            "column", name, feature.column, source.columns, _columns(source)
        )
    if feature.filter is not None:
        kind = sql.type_of("filter", name, feature.filter, source.columns, _columns(source))
        if kind != "BOOLEAN":
            raise _Unsound(f"the filter `{feature.filter}` is {kind}; write a condition that is true or false.")
    if feature.delay < 0:
        raise _Unsound(f"the delay is {feature.delay} microseconds; it must not be negative.")
    if feature.function and feature.embedding:
        raise _Unsound("it has a function and an embedding; keep one.")
    if feature.function is None:
        return _as_of(feature, name, source, argument)
    if feature.over_states and feature.function in OVER_STATES:
        return _over_states(feature, name, source, argument)
    if feature.function not in FUNCTIONS:
        raise _Unsound(f"the function {feature.function} does not exist; choose one of {', '.join(FUNCTIONS)}.")
    function = FUNCTIONS[feature.function]
    for need in function.needs:
        if getattr(feature, need) is None:
            raise _Unsound(f"{feature.function} has no {need}; declare it.")
    if feature.n is not None and not 1 <= feature.n <= MOST:
        raise _Unsound(f"n is {feature.n}; choose 1 to {MOST}.")
    if feature.half_life is not None and feature.half_life <= 0:
        raise _Unsound("the half-life is not positive; write a duration such as 7d.")
    if not 0 <= feature.scale <= 9:
        raise _Unsound(f"the scale is {feature.scale}; choose 0 to 9 decimals.")
    if feature.column is not None and function.takes and not function.takes.fullmatch(argument):
        expected = "a number" if function.takes is NUMBER else "something that can be compared"
        raise _Unsound(f"{feature.function} of {feature.column}, which is {argument}; it takes {expected}.")
    if feature.window.kind not in KINDS:
        raise _Unsound(f"the window {feature.window.kind} does not exist; choose one of {', '.join(KINDS)}.")
    if (feature.window.size > 0) == (feature.window.kind == LIFETIME):
        raise _Unsound(f"the window {feature.window.kind} has the size {feature.window.size}; write e.g. rolling: 1h.")
    if source.time is None or source.time not in source.columns:
        raise _Unsound(
            f"{name} has no time column to aggregate by; take a column of it, of a history also "
            f"{', '.join(OVER_STATES)}, or use a stream."
        )
    return argument, function.result(argument)


def _declared(feature: Feature, kind: str) -> str:
    """The type that the feature declares, if values of the type `kind` fit it."""
    if feature.type is None or _fits(feature.type, kind):
        return feature.type or kind
    raise _Unsound(f"it is declared as {feature.type} and computed as {kind}; correct its logicalType.")


def _fits(wanted: str, kind: str) -> bool:
    if wanted == kind:
        return True
    if wanted.endswith("[]") and kind.endswith("[]"):
        return _fits(wanted[:-2], kind[:-2])
    if wanted == "DOUBLE" or wanted.startswith("DECIMAL"):
        return bool(NUMBER.fullmatch(kind))
    return bool(INTEGER.fullmatch(kind)) if wanted == "BIGINT" else wanted == "VARCHAR" and kind == "UUID"


def _reads(sql: _Sql, view: FeatureView, feature: Feature, sources: Mapping[str, Source]) -> set[tuple[str, str]]:
    name = view.source_of(feature)
    there = {column.lower(): column for column in sources[name].columns}
    used = {feature.column.lower()} if feature.column and feature.column.lower() in there else set()
    for one in (feature.column if not used else None, feature.filter):
        used |= sql.references(one) if one else set()
    return {(name, there[one]) for one in used if one in there}


def _as_of(feature: Feature, name: str, source: Source, kind: str) -> tuple[str, str]:
    if feature.column is None:
        raise _Unsound("it has neither a function nor a column nor an expression; declare one of them.")
    if source.valid is None:
        raise _Unsound(f"{name} is not a history, so {feature.column} needs a function, e.g. last.")
    if feature.embedding is not None:
        if feature.embedding not in MODELS:
            raise _Unsound(f"the embedding {feature.embedding} does not exist; choose {' or '.join(MODELS)}.")
        if kind != "VARCHAR":
            raise _Unsound(f"the embedding of `{feature.column}`, which is {kind}; it takes a text.")
    elif feature.column not in source.columns:
        raise _Unsound(f"`{feature.column}` is not a column of {name}; {_columns(source)}.")
    if feature.window.kind != LIFETIME or feature.filter is not None:
        raise _Unsound(f"a column of the history {name} has no window or filter; take them out, or add a function.")
    return kind, "DOUBLE[]" if feature.embedding else kind


def _over_states(feature: Feature, name: str, source: Source, kind: str) -> tuple[str, str]:
    if feature.column not in source.columns:
        raise _Unsound(
            f"{feature.function} of {feature.column}, which is not a column of the history {name}; take a column: "
            f"{_columns(source)}."
        )
    if feature.window.kind != ROLLING or not feature.window.size or feature.filter is not None:
        raise _Unsound(
            f"{feature.function} of the history {name} needs a rolling window and takes no filter; "
            "write e.g. rolling: 30d."
        )
    if not 0 <= feature.scale <= 9:
        raise _Unsound(f"the scale is {feature.scale}; choose 0 to 9 decimals.")
    if not OVER_STATES[feature.function or ""].fullmatch(kind):
        expected = "a number" if feature.function == "avg" else "something that can be compared"
        raise _Unsound(f"{feature.function} of {feature.column}, which is {kind}; it takes {expected}.")
    return kind, "DOUBLE" if feature.function == "avg" else kind


def _ordered(sql: _Sql, view: FeatureView, expressions: Mapping[str, Feature]) -> tuple[list[str], list[str]]:
    """Names of the expressions that can be evaluated, in order, and the problems of the others."""
    import duckdb

    needs: dict[str, set[str]] = {}
    problems = []
    lower = {name.lower(): name for name in expressions}
    for name, feature in expressions.items():
        if feature.function or feature.column or feature.filter or feature.embedding:
            problems.append(
                f"{view.name}.{name}: it has an expression and a function, column, filter or embedding; keep one."
            )
            continue
        try:
            used = sql.references(feature.expression or "")
            needs[name] = {lower[one] for one in used if one in lower}
        except (duckdb.Error, ForbiddenSql, RecursionError) as error:
            problems.append(f"{view.name}.{name}: `{feature.expression}` cannot be read: {_first(error)}; correct it.")
    ordered, cyclic = in_order(needs)
    if cyclic:
        problems.append(f"{view.name}: the expressions {', '.join(cyclic)} need each other; break the cycle.")
    return list(ordered), problems


def _expression(sql: _Sql, view: FeatureView, feature: Feature, types: Mapping[str, str]) -> str:
    allowed = (
        f"it may use the features {', '.join(types)} and {REQUEST}.{f', {REQUEST}.'.join([TIMESTAMP, *view.request])}"
    )
    columns = {**types, REQUEST: request_type(view.request)}
    return sql.type_of("expression", "", feature.expression or "", columns, allowed)


def _columns(source: Source) -> str:
    return f"it has {', '.join(map(quote, source.columns))}"


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
