r"""SQL that casts text to the contract's types, and says of each cell that cannot be cast what was found there.

DuckDB's own casts guess (2.5 becomes the integer 3, '1.2345' the decimal 1.23), so that each is guarded by the
form that its text must have. The statement reads a view `given` with text columns `r0, r1, …`, `_row` (what is wrong
with the whole row, or NULL) and `n`, and gives `n`, the typed columns `t0, t1, …` and `_problems`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recsys_data.contracts.types import decimal_of, duckdb_type
from recsys_data.sources.source import PROBLEMS
from recsys_data.sql import literal

if TYPE_CHECKING:
    from recsys_data.sources.source import ColumnRequest

SHOWN = 100
DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME = "[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
ZONE = "(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
NUMBER = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
# With at most 15 digits and one of them before the point, as every printer spells them: then a float64 shows whether
# a decimal is the same number.
EXPONENT = "[+-]?[0-9]([.][0-9]{0,14})?[eE][+-]?[0-9]{1,3}"
YEARS = "BETWEEN {kind} '0001-01-01' AND {kind} '9999-12-31 23:59:59.999999'"
EXPECTED = {
    "boolean": "true or false",
    "timestamp": "a time as in 2026-01-31T09:30:00Z",
    "local timestamp": "a time without a zone as in 2026-01-31T09:30:00",
    "date": "a date as in 2026-01-31",
    "object": "a JSON object",
    "array": "a JSON array",
    "map": "a JSON object",
    "list<string>": "a JSON array or values parted by |",
    "list<integer>": "a JSON array of integers or integers parted by |",
    "list<number>": "a JSON array of numbers or numbers parted by |",
}


def cast_sql(wanted: "Mapping[int, ColumnRequest]", raw_json: bool) -> str:
    """The statement for these columns, by number; `raw_json` if their text is JSON as spelled in a document."""
    given = [f"{_unquoted(f'r{n}') if raw_json else f'r{n}'} AS s{n}" for n in wanted]
    typed = [f"{cell(column.type, f's{n}')} AS t{n}" for n, column in wanted.items()]
    if raw_json:
        typed = [
            f"CASE WHEN r{n}[1] NOT IN ('{{', '[') THEN s{n} END AS t{n}" if column.type == "string" else expression
            for (n, column), expression in zip(wanted.items(), typed, strict=True)
        ]
    lost = {n: f"r{n} IS NOT NULL AND t{n} IS NULL" + (f" AND r{n} <> 'null'" if raw_json else "") for n in wanted}
    said = ["_row"]
    for n, column in wanted.items():
        expected = EXPECTED.get(column.type, column.type)
        # A text too long to be shown whole is cut, and says so.
        found = f"r{n}[:{SHOWN}] || CASE WHEN length(r{n}) > {SHOWN} THEN '…' ELSE '' END"
        before, after = literal(f"{column.name}: found '"), literal(f"'; expected {expected}")
        said.append(f"CASE WHEN {lost[n]} THEN {before} || {found} || {after} END")
    any_lost = " OR ".join(["_row IS NOT NULL", *(f"({condition})" for condition in lost.values())])
    problems = f"CASE WHEN {any_lost} THEN list_filter([{', '.join(said)}], lambda x: x IS NOT NULL) END"
    chosen = ", ".join(["n", *(f"t{n}" for n in wanted), f"{problems} AS {PROBLEMS}"])
    inner = f"SELECT {', '.join(['*', *given])} FROM given"
    return f"SELECT {chosen} FROM (SELECT {', '.join(['*', *typed])} FROM ({inner}))"


def _unquoted(raw: str) -> str:
    """The text of a JSON value: a string without its quotes, NULL for null, all else as it is spelled."""
    # Lone surrogates are not text; the value is NULL then, and a problem.
    escaped = f"CASE WHEN json_valid({raw}) THEN {raw} ->> '$' END"
    string = f"CASE WHEN contains({raw}, '\\') THEN {escaped} ELSE {raw}[2:-2] END"
    return f"CASE WHEN {raw}[1] = '\"' THEN {string} WHEN {raw} <> 'null' THEN {raw} END"


def cell(logical: str, text: str) -> str:
    """SQL expression: the value of a text as this logical type, or NULL where it is none.

    >>> cell("string", "s0")
    's0'
    """
    if logical.startswith("list<"):
        return _list(logical[5:-1], text)
    if decimal := decimal_of(logical):
        return _decimal(logical, decimal[1], f"trim({text})")
    bare = f"trim({text})"
    match logical:
        case "integer":
            return _where(bare, "[+-]?[0-9]+([.]0*)?", f"try_cast(ltrim(split_part({bare}, '.', 1), '+') AS BIGINT)")
        case "number":
            number = f"try_cast({bare} AS DOUBLE)"
            return _where(bare, NUMBER, f"CASE WHEN isfinite({number}) THEN {number} END")
        case "boolean":
            yes, no = "('true', 't', 'yes', 'y', '1')", "('false', 'f', 'no', 'n', '0')"
            return f"CASE WHEN lower({bare}) IN {yes} THEN true WHEN lower({bare}) IN {no} THEN false END"
        case "timestamp":
            return _time("TIMESTAMPTZ", bare, f"{DATE}({TIME}{ZONE})?")
        case "local timestamp":
            return _time("TIMESTAMP", bare, f"{DATE}({TIME})?")
        case "date":
            return _time("DATE", f"{bare}[:10]", DATE, bare, "([T ]00:00(:00([.]0+)?)?)?")
        case "object" | "array":
            return f"CASE WHEN json_type(try_cast({text} AS JSON)) = '{logical.upper()}' THEN {text} END"
        case "map":
            return _map(text)
        case "binary":
            return f"encode({text})"
    return text


def _where(text: str, pattern: str, value: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, {literal(pattern)}) THEN {value} END"


def _decimal(logical: str, scale: int, text: str) -> str:
    value = f"try_cast({text} AS {duckdb_type(logical)})"
    plain = f"[+-]?([0-9]+([.][0-9]{{0,{scale}}}0*)?|[.][0-9]{{0,{scale}}}0*)"
    same = f"regexp_full_match({text}, '{EXPONENT}') AND {value}::DOUBLE = try_cast({text} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({text}, '{plain}') THEN {value} WHEN {same} THEN {value} END"


def _time(kind: str, text: str, pattern: str, whole: str | None = None, rest: str = "") -> str:
    """Times of the years 1 to 9999; `2026-01-31 09:30:00 UTC` and `… +0100` are understood too."""
    spelled = f"replace(replace(replace(upper({text}), ' UTC', 'Z'), ' +', '+'), ' -', '-')" if not whole else text
    value = f"try_cast({spelled} AS {kind})"
    matched = f"regexp_full_match({whole or spelled}, {literal(pattern + rest)})"
    # The year 0 is read as 1 BC.
    return f"CASE WHEN {matched} THEN CASE WHEN {value} {YEARS.format(kind=kind)} THEN {value} END END"


def _map(text: str) -> str:
    """Sorted by key, so that the same object spelled in another order is not a change."""
    parsed = f"from_json({text}, '\"MAP(VARCHAR, VARCHAR)\"')"
    entries = f"map_from_entries(list_sort(map_entries({parsed})))"
    return f"CASE WHEN json_type(try_cast({text} AS JSON)) = 'OBJECT' THEN {entries} END"


def _list(element: str, text: str) -> str:
    """Of a JSON array, or of what stands between `|`; an empty text is an empty list."""
    parsed = f"CASE WHEN json_type(try_cast({text} AS JSON)) = 'ARRAY' THEN from_json({text}, '[\"VARCHAR\"]') END"
    texts = f"CASE WHEN {text} = '' THEN [] WHEN {text}[1] = '[' THEN {parsed} ELSE string_split({text}, '|') END"
    if element == "string":
        return texts
    values = f"list_transform({texts}, lambda x: {cell(element, 'x')})"
    return f"CASE WHEN list_count({values}) = list_count({texts}) THEN {values} END"
