"""Logical types of a contract -> Arrow, DuckDB and JSON types. Iceberg types follow from the Arrow types."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_data.contracts.model import Contract

# logical type: (Arrow type, DuckDB type, type asked of DuckDB when it reads the JSON of an event)
STORED = {
    "string": ("string", "VARCHAR", "VARCHAR"),
    # Read as they stand in the JSON, so that "7" or 2.5 for an integer is seen, not cast.
    "integer": ("int64", "BIGINT", "JSON"),
    "number": ("float64", "DOUBLE", "JSON"),
    "boolean": ("bool", "BOOLEAN", "JSON"),
    # Times are read as text, because a cast would ignore or guess what it does not understand.
    "timestamp": ("timestamp[us, tz=UTC]", "TIMESTAMPTZ", "VARCHAR"),
    "local timestamp": ("timestamp[us]", "TIMESTAMP", "VARCHAR"),
    "date": ("date32", "DATE", "VARCHAR"),
    # Objects and arrays are kept as the JSON that the client sent.
    "object": ("string", "VARCHAR", "JSON"),
    "array": ("string", "VARCHAR", "JSON"),
    "binary": ("binary", "BLOB", "VARCHAR"),
}
# What only datasets that are taken as snapshots may hold beyond those: Arrow element type, DuckDB type.
NESTED = {
    "list<string>": ("string", "VARCHAR[]"),
    "list<integer>": ("int64", "BIGINT[]"),
    "list<number>": ("float64", "DOUBLE[]"),
    "map": ("string", "MAP(VARCHAR, VARCHAR)"),
}
DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")


def decimal_of(logical: str) -> tuple[int, int] | None:
    """Precision and scale of `decimal(P,S)`; None for every other type, and for what 128 bits cannot hold."""
    found = DECIMAL.fullmatch(logical)
    precision, scale = (int(found[1]), int(found[2])) if found else (0, 0)
    return (precision, scale) if 1 <= precision <= 38 and scale <= precision else None


def is_stored(logical: str, snapshot: bool) -> bool:
    """Whether columns of this logical type can be stored, in a dataset that is taken as snapshots or another."""
    return logical in STORED or (snapshot and (logical in NESTED or decimal_of(logical) is not None))


def duckdb_type(logical: str) -> str:
    if decimal_of(logical):
        return logical.upper()
    return NESTED[logical][1] if logical in NESTED else STORED[logical][1]


def canonical_type(logical: str) -> str:
    """The DuckDB type as DuckDB itself names it."""
    return duckdb_type(logical).replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")


def json_type(logical: str) -> str:
    return STORED[logical][2]


def arrow_type(logical: str) -> "pa.DataType":
    """The Arrow type that a column of this logical type is stored as."""
    import pyarrow as pa

    if logical == "timestamp":
        return pa.timestamp("us", tz="UTC")
    if logical == "local timestamp":
        return pa.timestamp("us")
    if decimal := decimal_of(logical):
        return pa.decimal128(*decimal)
    if logical == "map":
        return pa.map_(pa.string(), pa.string())
    if logical in NESTED:
        return pa.list_(pa.type_for_alias(NESTED[logical][0]))
    return pa.type_for_alias(STORED[logical][0])


def arrow_schema(contract: "Contract") -> "pa.Schema":
    """The Arrow schema of the dataset's table; key columns and required columns are not nullable."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(column.name, arrow_type(column.type), nullable=not (column.required or column.key))
            for column in contract.columns
        ]
    )
