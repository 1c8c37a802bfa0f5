"""Expressions of feature views computed in NumPy, from DuckDB's syntax tree of their SQL.

A statement takes DuckDB more than a millisecond to plan, for whatever few rows. What is here has DuckDB's values to the
bit, which a test holds against it; whatever else an expression does (`Unsupported`) is left to DuckDB: other functions
and types, sums of whole numbers that may not fit 64 bits, comparisons of NaN.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsys_data.contracts.features.expressions import REQUEST

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

NONE, WHOLE, DECIMAL, REAL, TRUTH, TEXT, MOMENT = "null", "whole", "decimal", "real", "truth", "text", "moment"
NUMBERS = (WHOLE, DECIMAL, REAL)
# Sums of two whole numbers up to it fit 64 bits.
MOST = 2**62
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "COMPARE_EQUAL": operator.eq,
    "COMPARE_NOTEQUAL": operator.ne,
    "COMPARE_LESSTHAN": operator.lt,
    "COMPARE_GREATERTHAN": operator.gt,
    "COMPARE_LESSTHANOREQUALTO": operator.le,
    "COMPARE_GREATERTHANOREQUALTO": operator.ge,
}
ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Unsupported(Exception):
    """The expression is to be computed by DuckDB."""


class Column(NamedTuple):
    """Values, and which of them are not NULL."""

    kind: str
    values: "NDArray[Any]"
    valid: "NDArray[np.bool_]"


def column_of(array: "pa.Array") -> Column:
    """An Arrow array as a column.

    Raises:
        Unsupported: it has another type.
    """
    import pyarrow as pa

    valid = np.ones(len(array), bool) if not array.null_count else array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_int64(array.type):
        return Column(WHOLE, array.fill_null(0).to_numpy(), valid)
    if pa.types.is_float64(array.type):
        return Column(REAL, array.fill_null(0.0).to_numpy(), valid)
    if pa.types.is_boolean(array.type):
        return Column(TRUTH, array.fill_null(False).to_numpy(zero_copy_only=False), valid)
    if pa.types.is_timestamp(array.type) and array.type.unit == "us" and array.type.tz:
        return Column(MOMENT, array.cast(pa.int64()).fill_null(0).to_numpy(), valid)
    if pa.types.is_string(array.type):
        return Column(TEXT, array.to_numpy(zero_copy_only=False), valid)
    raise Unsupported(str(array.type))


def array_of(column: Column, kind: "pa.DataType") -> "pa.Array":
    """A column as an Arrow array of a type."""
    import pyarrow as pa

    if column.kind == NONE:
        return pa.nulls(len(column.values), kind)
    if column.kind == MOMENT:
        return pa.array(column.values, pa.int64(), mask=~column.valid).cast(kind)
    found = pa.array(column.values, mask=~column.valid)
    return found if found.type == kind else found.cast(kind)


def evaluated(tree: Mapping[str, Any], columns: Mapping[str, Column], rows: int) -> Column:
    """The values of an expression.

    Args:
        tree: DuckDB's syntax tree of it.
        columns: by what `expressions.references` calls them.
        rows: how many.

    Raises:
        Unsupported: it does what is left to DuckDB.
    """

    def of(node: Mapping[str, Any]) -> Column:
        return evaluated(node, columns, rows)

    match tree["class"]:
        case "COLUMN_REF":
            return _column(tree["column_names"], columns)
        case "CONSTANT":
            return _constant(tree["literal"], rows)
        case "COMPARISON" if tree["type"] in COMPARISONS:
            return _compared(COMPARISONS[tree["type"]], of(tree["left"]), of(tree["right"]))
        case "CONJUNCTION":
            return _joined(tree["type"] == "CONJUNCTION_AND", [of(one) for one in tree["children"]])
        case "OPERATOR":
            return _operator(tree["type"], [of(one) for one in tree["children"]])
        case "CASE":
            found = of(tree["else_expr"])
            for check in reversed(tree["case_checks"]):
                when, then = of(check["when_expr"]), of(check["then_expr"])
                if when.kind not in (TRUTH, NONE):
                    raise Unsupported("a condition that is no truth value")
                found = _chosen(when.values.astype(bool) & when.valid, then, found)
            return found
        case "FUNCTION":
            given = [of(one["expression"]) for one in tree["arguments"]]
            if given and not (tree["distinct"] or tree["filter"]):
                return _function(tree["function_name"], given)
    raise Unsupported(str(tree.get("type")))


def _column(path: Sequence[str], columns: Mapping[str, Column]) -> Column:
    name = ".".join(path).lower()
    if len(path) != (2 if path[0].lower() == REQUEST else 1) or name not in columns:
        raise Unsupported(name)
    return columns[name]


def _constant(literal: Mapping[str, str], rows: int) -> Column:
    text, every = literal["text"], np.ones(rows, bool)
    match literal["kind"]:
        case "INTEGER" if len(text) < 18:
            return Column(WHOLE, np.full(rows, int(text)), every)
        case "NUMERIC":
            # Without an exponent it is a decimal, which becomes a double beside one.
            return Column(REAL if "e" in text.lower() else DECIMAL, np.full(rows, float(text)), every)
        case "STRING":
            return Column(TEXT, np.full(rows, text, object), every)
        case "BOOLEAN":
            return Column(TRUTH, np.full(rows, text == "true"), every)
        case "NULL_LITERAL":
            return Column(NONE, np.zeros(rows), ~every)
    raise Unsupported(literal["kind"])


def _real(column: Column) -> Column:
    """Numbers as doubles."""
    if column.kind not in NUMBERS:
        raise Unsupported(f"{column.kind} as a number")
    return Column(REAL, column.values.astype(np.float64), column.valid)


def _alike(*given: Column) -> Sequence[Column]:
    """Columns of one kind; whole numbers become doubles beside doubles."""
    kinds = {one.kind for one in given} - {NONE}
    if len(kinds) > 1 and REAL in kinds and kinds <= set(NUMBERS):
        return [one if one.kind == NONE else _real(one) for one in given]
    if len(kinds) > 1 or DECIMAL in kinds:
        raise Unsupported(" and ".join(sorted(kinds)))
    return given


def _without_nan(given: Sequence[Column]) -> None:
    # For DuckDB it equals itself, and is the greatest number.
    if any(one.kind == REAL and np.isnan(one.values[one.valid]).any() for one in given):
        raise Unsupported("NaN")


def _compared(how: Callable[[Any, Any], Any], left: Column, right: Column) -> Column:
    left, right = _alike(left, right)
    _without_nan((left, right))
    if left.kind == TEXT and how not in (operator.eq, operator.ne):
        raise Unsupported("order of text")
    if NONE in (left.kind, right.kind):
        return Column(TRUTH, np.zeros(len(left.values), bool), np.zeros(len(left.values), bool))
    return Column(TRUTH, how(left.values, right.values).astype(bool), left.valid & right.valid)


def _joined(every: bool, given: Sequence[Column]) -> Column:
    """AND or OR: NULL unless one of them decides."""
    if any(one.kind not in (TRUTH, NONE) for one in given):
        raise Unsupported("a truth value of something else")
    decided = np.logical_or.reduce([one.valid & (one.values.astype(bool) != every) for one in given])
    known = np.logical_and.reduce([one.valid for one in given])
    return Column(TRUTH, decided != every, np.logical_or(decided, known))


def _operator(name: str, given: Sequence[Column]) -> Column:
    one = given[0]
    every = np.ones(len(one.values), bool)
    match name:
        case "OPERATOR_IS_NULL":
            return Column(TRUTH, ~one.valid, every)
        case "OPERATOR_IS_NOT_NULL":
            return Column(TRUTH, one.valid, every)
        case "OPERATOR_NOT" if one.kind == TRUTH:
            return Column(TRUTH, ~one.values, one.valid)
        case "OPERATOR_COALESCE":
            given = _alike(*given)
            found = given[-1]
            for other in reversed(given[:-1]):
                found = _chosen(other.valid, other, found)
            return found
    raise Unsupported(name)


def _chosen(which: "NDArray[np.bool_]", then: Column, otherwise: Column) -> Column:
    """The first column where `which`, else the second."""
    then, otherwise = _alike(then, otherwise)
    if NONE in (then.kind, otherwise.kind):
        known, there = (otherwise, ~which) if then.kind == NONE else (then, which)
        return Column(known.kind, known.values, known.valid & there)
    values = np.where(which, then.values, otherwise.values)
    return Column(then.kind, values, np.where(which, then.valid, otherwise.valid))


def _function(name: str, given: Sequence[Column]) -> Column:
    if any(one.kind == NONE for one in given):
        raise Unsupported(f"{name} of NULL")
    match name, given:
        case "/", (left, right):
            left, right = _real(left), _real(right)
            with np.errstate(all="ignore"):
                return Column(REAL, left.values / right.values, left.valid & right.valid)
        case (("+" | "-" | "*"), (left, right)):
            return _arithmetic(name, left, right)
        case "-", (one,) if one.kind == REAL:
            return one._replace(values=-one.values)
        case "-", (one,):
            return _arithmetic(name, Column(WHOLE, np.zeros(len(one.values), np.int64), one.valid), one)
        case "epoch_us", (one,) if one.kind == MOMENT:
            return one._replace(kind=WHOLE)
        case (("greatest" | "least"), _):
            given = _alike(*given)
            _without_nan(given)
            if given[0].kind not in (WHOLE, REAL):
                raise Unsupported(f"{name} of {given[0].kind}")
            found = given[0]
            for one in given[1:]:
                better = one.values > found.values if name == "greatest" else one.values < found.values
                found = _chosen(one.valid & (better | ~found.valid), one, found)
            return found
        case "exp", (one,):
            one = _real(one)
            # NumPy's own may differ from the C library's in the last bit.
            return one._replace(values=np.array([_exp(value) for value in one.values.tolist()], np.float64))
        case "nullif", (left, right) if left.kind == right.kind:
            same = _compared(operator.eq, left, right)
            return left._replace(valid=left.valid & ~(same.values & same.valid))
    raise Unsupported(name)


def _arithmetic(name: str, left: Column, right: Column) -> Column:
    left, right = _alike(left, right)
    if left.kind not in (WHOLE, REAL):
        raise Unsupported(f"{left.kind} {name} {right.kind}")
    if left.kind == WHOLE:
        one, other = (int(np.abs(it.values).max(initial=0)) for it in (left, right))
        if max(one, other) >= MOST or min(one, other) < 0 or (name == "*" and one * other >= MOST):
            raise Unsupported("whole numbers of more than 64 bits")
    with np.errstate(all="ignore"):
        return Column(left.kind, ARITHMETIC[name](left.values, right.values), left.valid & right.valid)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
