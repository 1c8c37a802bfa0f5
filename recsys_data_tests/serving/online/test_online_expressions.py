"""Expressions in NumPy have DuckDB's values, bit for bit, or are left to DuckDB."""

import math
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from recsys_data.contracts import load_contracts
from recsys_data.contracts.sql_guard import syntax_tree
from recsys_data.features.lake import open_features
from recsys_data.serving.online.expressions import Column, Unsupported, array_of, column_of, evaluated

TYPES = {"a": pa.int64(), "b": pa.int64(), "x": pa.float64(), "y": pa.float64(), "p": pa.bool_(), "q": pa.bool_()}
TYPES |= {"t": pa.timestamp("us", "UTC"), "u": pa.timestamp("us", "UTC"), "s": pa.string()}


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    with closing(open_features()) as one:
        yield one


def parsed(connection: Any, sql: str) -> Any:
    tree = syntax_tree(connection, f"SELECT {sql}")
    assert tree
    return tree[0]["node"]["select_list"][0]


def duckdb_says(connection: Any, sql: str, rows: pa.Table) -> pa.Array:
    connection.register("given", rows.append_column("#n", pa.array(np.arange(rows.num_rows))))
    found = connection.sql(f'SELECT {sql} AS value FROM given ORDER BY "#n"').to_arrow_table()
    return found["value"].combine_chunks()


def numpy_says(connection: Any, sql: str, rows: pa.Table, kind: pa.DataType) -> pa.Array:
    columns = {name: column_of(rows[name].combine_chunks()) for name in rows.column_names}
    return array_of(evaluated(parsed(connection, sql), columns, rows.num_rows), kind)


def bits(array: pa.Array) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, float):
            return "nan" if math.isnan(value) else struct.pack("d", value)
        return value

    return [one(value) for value in array.to_pylist()]


def numbers(depth: int) -> st.SearchStrategy[str]:
    """SQL of numbers."""
    plain = st.sampled_from(["a", "b", "x", "y", "1", "20", "3.6e9", "0.5", "epoch_us(t)"])
    if not depth:
        return plain
    one, truth = numbers(depth - 1), truths(depth - 1)
    two = st.sampled_from(["greatest({}, {})", "least({}, {})", "coalesce({}, {})", "nullif({}, {})"])
    two |= st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "({} / {})"])
    return (
        plain
        | st.tuples(two, one, one).map(lambda it: it[0].format(*it[1:]))
        | st.tuples(st.sampled_from(["exp({} / 100)", "(- {})"]), one).map(lambda it: it[0].format(it[1]))
        | st.tuples(truth, one, one).map(lambda it: f"CASE WHEN {it[0]} THEN {it[1]} ELSE {it[2]} END")
        | st.tuples(truth, one).map(lambda it: f"CASE WHEN {it[0]} THEN {it[1]} END")
    )


def truths(depth: int) -> st.SearchStrategy[str]:
    """SQL of truth values."""
    plain = st.sampled_from(["p", "q", "true", "s = 'one'", "t <= u", "a IS NULL", "s IS NOT NULL"])
    if not depth:
        return plain
    one, number = truths(depth - 1), numbers(depth - 1)
    how = st.sampled_from(["<", "<=", ">", ">=", "=", "<>"])
    return (
        plain
        | st.tuples(number, how, number).map(lambda it: f"({' '.join(it)})")
        | st.tuples(one, st.sampled_from(["AND", "OR"]), one).map(lambda it: f"({' '.join(it)})")
        | one.map(lambda it: f"(NOT {it})")
    )


MOMENTS = st.integers(0, 2 * 10**9).map(lambda one: datetime.fromtimestamp(one, UTC))
VALUES = {
    pa.int64(): st.sampled_from([0, 1, 2, 7, -3, 2**53 + 1, 2**62]) | st.integers(-100, 100),
    pa.float64(): st.sampled_from([0.0, -0.0, 1.0, math.inf, math.nan]) | st.floats(-1e6, 1e6),
    pa.bool_(): st.booleans(),
    pa.timestamp("us", "UTC"): MOMENTS,
    pa.string(): st.sampled_from(["one", "two", ""]),
}


@st.composite
def tables(draw: Any) -> pa.Table:
    rows = draw(st.integers(1, 6))
    some = {name: st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows) for name, kind in TYPES.items()}
    return pa.table({name: pa.array(draw(some[name]), kind) for name, kind in TYPES.items()})


@settings(max_examples=100, deadline=None)
@given(sql=numbers(3) | truths(3), rows=tables())
def test_values_are_those_of_duckdb(connection: Any, sql: str, rows: pa.Table) -> None:
    import duckdb

    try:
        wanted = duckdb_says(connection, sql, rows)
    except duckdb.Error:
        # What DuckDB refuses, such as an overflow, is not computed otherwise.
        with pytest.raises(Unsupported):
            numpy_says(connection, sql, rows, pa.float64())
        return
    try:
        found = numpy_says(connection, sql, rows, wanted.type)
    except Unsupported:
        event("left to DuckDB")
        return
    assert bits(found) == bits(wanted)


@pytest.mark.parametrize("view", ["user_activity", "item_engagement", "user_item"])
def test_shipped_views_need_no_statement(connection: Any, view: str) -> None:
    declared = load_contracts()[view].view
    assert declared
    kinds = {"max": pa.timestamp("us", "UTC"), "min": pa.timestamp("us", "UTC"), "sum": pa.float64()}
    rows = pa.table(
        {
            one.name: pa.array([None, 3, 4]).cast(kinds.get(one.function or "", pa.int64()))
            for one in declared.features
            if not one.expression and one.function != "last_n"
        }
    )
    moment = column_of(pa.array([9, 9, 9]).cast(pa.timestamp("us", "UTC")))
    columns: dict[str, Column] = {name: column_of(rows[name].combine_chunks()) for name in rows.column_names}
    columns["request.timestamp"] = moment
    for one in declared.features:
        if one.expression:
            columns[one.name] = evaluated(parsed(connection, one.expression), columns, 3)
    assert all(len(columns[one.name].values) == 3 for one in declared.features if one.expression)


@pytest.mark.parametrize("sql", ["category_path[1]", "upper(s)", "a % 2", "s < 'a'", "a * 0.5", "x::INTEGER", "p + 1"])
def test_what_is_not_simple_is_left_to_duckdb(connection: Any, sql: str) -> None:
    rows = pa.table({"a": [1], "x": [1.0], "s": ["b"], "p": [True]})
    with pytest.raises(Unsupported):
        numpy_says(connection, sql, rows, pa.float64())
