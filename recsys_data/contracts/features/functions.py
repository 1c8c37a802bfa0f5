"""The functions of features, each as mergeable partial aggregates.

A function is made of states. A state is gathered from rows, merged with states of the same kind, and turned into the
value at the end; merging never depends on order or grouping, so that tiles and rows give identical values. Numbers
are therefore summed as decimals, not as doubles. Only `decayed` sums doubles and agrees within 1e-9.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from recsys_data.contracts.features.view import Feature
from recsys_data.sql import quote

# Number of hashes that a sketch keeps: exact below it, 6 % standard error above.
SKETCH = 256
INTEGER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?")
# Types that order in Arrow as they do in DuckDB; others need a key.
PLAIN = re.compile(r"U?(TINY|SMALL|BIG)?INT(EGER)?|FLOAT|DOUBLE|VARCHAR|DATE|TIMESTAMP( WITH TIME ZONE)?")
SORT_KEY = "create_sort_key({s}, 'ASC NULLS LAST')"
NUMBER = re.compile(INTEGER.pattern + r"|FLOAT|DOUBLE|DECIMAL\(.*\)")
ORDERED = re.compile(NUMBER.pattern + r"|VARCHAR|BOOLEAN|DATE|TIME.*|UUID")

LOGICAL = {
    **dict.fromkeys(("FLOAT", "DOUBLE"), "number"),
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "local timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}

# How states are merged: exactly summed, summed as they halve with time, or the first or last of them in their order.
SUM, DECAYED, LEAST, DISTINCT_LEAST, GREATEST = "sum", "decayed", "least", "distinct least", "greatest"

# kind of state: (aggregate over rows, state of one row, how states are merged). {x} is the value, {d} the value as a
# decimal, {row} the value with its place in the order of events, {h} 63 bits of a hash. {at} and {to} are the moments
# of the row and of the result.
STATES = {
    "count": ("count({x})", "CASE WHEN {x} IS NOT NULL THEN 1 END::BIGINT", SUM),
    "numbers": ("count({d})", "CASE WHEN {d} IS NOT NULL THEN 1 END::BIGINT", SUM),
    "sum": ("sum({d})", "{d}", SUM),
    "squares": ("sum({wide} * {d})", "{wide} * {d}", SUM),
    "min": ("min({x})", "{x}", LEAST),
    "max": ("max({x})", "{x}", GREATEST),
    "first": ("min({row})", "{row}", LEAST),
    "last": ("max({row})", "{row}", GREATEST),
    "last_n": ("max({row}, {n})", "CASE WHEN {x} IS NOT NULL THEN [{row}] END", GREATEST),
    "sketch": (f"min(DISTINCT {{h}}, {SKETCH})", "CASE WHEN {x} IS NOT NULL THEN [{h}] END", DISTINCT_LEAST),
    "decayed": (
        "sum({x}::DOUBLE * pow(2.0::DOUBLE, (({at}) - ({to})) / {half_life}::DOUBLE))",
        "{x}::DOUBLE",
        DECAYED,
    ),
}


@dataclass(frozen=True)
class Function:
    """How a feature is computed.

    Attributes:
        states: kinds of state that it is made of.
        value: SQL over the merged states, each NULL where there were no rows.
        takes: pattern of the DuckDB types of columns that it fits; None: all types.
        result: DuckDB type of the column -> that of the value.
        needs: attributes of the feature that must be set.
        empty: SQL of the value where there were no rows; None: NULL.
    """

    states: tuple[str, ...]
    value: str
    takes: re.Pattern[str] | None
    result: Callable[[str], str]
    needs: tuple[str, ...] = ("column",)
    empty: str | None = None


def is_integer(kind: str) -> bool:
    return bool(INTEGER.fullmatch(kind))


def _sum_type(kind: str) -> str:
    return "BIGINT" if is_integer(kind) else "DOUBLE"


# Of n values with the sum s and the sum of squares q.
STDDEV = """CASE WHEN {numbers} > 1 THEN sqrt(greatest(0, ({numbers} * {squares}::DOUBLE - {sum}::DOUBLE ** 2)
    / ({numbers}::DOUBLE * ({numbers} - 1)))) END"""
DISTINCT = f"""CASE WHEN len({{sketch}}) < {SKETCH} THEN len({{sketch}})
    ELSE round({SKETCH - 1} * 2.0::DOUBLE ** 63 / {{sketch}}[{SKETCH}]) END::BIGINT"""
FUNCTIONS = {
    "count": Function(("count",), "{count}", None, lambda _: "BIGINT", (), "0"),
    "sum": Function(("sum",), "{sum}::{type}", NUMBER, _sum_type),
    "avg": Function(("sum", "numbers"), "{sum}::DOUBLE / nullif({numbers}, 0)", NUMBER, lambda _: "DOUBLE"),
    "stddev": Function(("numbers", "sum", "squares"), STDDEV, NUMBER, lambda _: "DOUBLE"),
    "min": Function(("min",), "{min}", ORDERED, lambda kind: kind),
    "max": Function(("max",), "{max}", ORDERED, lambda kind: kind),
    "first": Function(("first",), "{first}.value", None, lambda kind: kind),
    "last": Function(("last",), "{last}.value", None, lambda kind: kind),
    "last_n": Function(("last_n",), "[one.value for one in {last_n}]", None, lambda kind: f"{kind}[]", ("column", "n")),
    "approx_count_distinct": Function(("sketch",), DISTINCT, None, lambda _: "BIGINT", empty="0"),
    "decayed_sum": Function(("decayed",), "{decayed}", NUMBER, lambda _: "DOUBLE", ("column", "half_life")),
}


# Over the states of a history: pattern of the types that they take; `features.histories` computes them.
OVER_STATES = {"median": ORDERED, "min": ORDERED, "max": ORDERED, "avg": NUMBER}


@dataclass(frozen=True)
class State:
    """A column of partial aggregates. The name depends on nothing but what it holds.

    Attributes:
        argument: SQL over a row of the source: the value, or NULL if the row does not count.
        column: name under which `gather` finds the argument.
        elements: how many elements its list may have; 0: it is not a list.
        type: logical type of the column that stores it.
        struct: DuckDB type of a state that is stored as JSON.
        gather: aggregate over rows, with {at} and {to} open.
        merge: aggregate over its own column, with {s}, {at} and {to} open.
    """

    name: str
    argument: str
    column: str
    gather: str
    of_row: str
    merge: str
    elements: int
    type: str
    kind: str | None = None
    key: str = "{s}"
    struct: str | None = None
    half_life: int | None = None


def states_of(feature: Feature, columns: dict[str, str], kind: str, order: int) -> dict[str, State]:
    """The states of an aggregate: kind of state -> state.

    Args:
        feature: an aggregate without problems.
        columns: of its source; what is not among them is SQL.
        kind: DuckDB type of its column.
        order: number of columns, "#o0" and so on, that order rows of the same "#ts".
    """
    value = "true" if feature.column is None else _operand(feature.column, columns)
    argument = f"CASE WHEN ({feature.filter}) THEN {value} END" if feature.filter else value
    x = f'"#x{_digest(argument)}"'
    scale = 0 if is_integer(kind) else feature.scale
    places = "".join(f', o{n} := "#o{n}"' for n in range(order))
    # What does not fit a decimal of 18 digits (NaN, an absurd amount) does not count, so that one event cannot stop
    # every feature: rules of contracts reject it where it arrives.
    of_row = {
        "x": x,
        "d": f"TRY_CAST({x} AS DECIMAL(18, {scale}))",
        # The product of two decimals of 18 digits has no more.
        "wide": f"TRY_CAST({x} AS DECIMAL(18, {scale}))::DECIMAL(38, {scale})",
        "row": f'CASE WHEN {x} IS NOT NULL THEN struct_pack(ts := "#ts"{places}, value := {x}) END',
        "h": f"(md5_number_lower({x}::VARCHAR) >> 1)::BIGINT",
        "n": feature.n,
        "half_life": feature.half_life,
        "at": "{at}",
        "to": "{to}",
    }
    found = {}
    for state in FUNCTIONS[feature.function or ""].states:
        gather, one_row = (sql.format(**of_row) for sql in STATES[state][:2])
        elements = {"last_n": feature.n or 0, "sketch": SKETCH}.get(state, 0)
        stored, struct = _stored(state, kind, scale, order)
        name = f"{state}_{_digest(argument + gather + stored)}"
        found[state] = State(
            name,
            argument,
            x,
            gather,
            one_row,
            STATES[state][2],
            elements,
            stored,
            kind=struct or (kind if state in ("min", "max") else None),
            key=_key(state, kind),
            struct=struct,
            half_life=feature.half_life if state == "decayed" else None,
        )
    return found


def _key(state: str, kind: str) -> str:
    """SQL of what orders states; a number orders itself."""
    if state == "last_n":
        return f"list_transform({{s}}, lambda one: {SORT_KEY.format(s='one')})"
    ranked = state in ("first", "last") or (state in ("min", "max") and not PLAIN.fullmatch(kind))
    return SORT_KEY if ranked else "{s}"


def _stored(state: str, kind: str, scale: int, order: int) -> tuple[str, str | None]:
    """The logical type of a stored state, and its DuckDB type if it is stored as JSON."""
    places = "".join(f"o{n} BIGINT, " for n in range(order))
    row = f"STRUCT(ts BIGINT, {places}value {kind})"
    if state in ("first", "last", "last_n"):
        return "string", f"{row}[]" if state == "last_n" else row
    fixed = {"sum": f"decimal(38,{scale})", "squares": f"decimal(38,{2 * scale})", "decayed": "number"}
    fixed |= {"count": "integer", "numbers": "integer", "sketch": "list<integer>"}
    return fixed.get(state) or logical_type(kind), None


def logical_type(kind: str) -> str:
    """The logical type that values of a DuckDB type are stored as; text where there is none for it.

    >>> logical_type("INTEGER"), logical_type("DECIMAL(18,4)"), logical_type("VARCHAR[]"), logical_type("UUID")
    ('integer', 'decimal(18,4)', 'list<string>', 'string')
    """
    if kind.endswith("[]"):
        return {"integer": "list<integer>", "number": "list<number>"}.get(logical_type(kind[:-2]), "list<string>")
    if kind.startswith("DECIMAL"):
        return kind.lower()
    if is_integer(kind):
        return "integer"
    return LOGICAL.get(kind, "string")


def value_of(feature: Feature, states: dict[str, str], kind: str) -> str:
    """SQL of the value from SQL of its merged states (kind of state -> SQL)."""
    function = FUNCTIONS[feature.function or ""]
    return function.value.format(**states, type=function.result(kind))


def _operand(column: str, columns: dict[str, str]) -> str:
    return quote(column) if column in columns else f"({column})"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:10]
