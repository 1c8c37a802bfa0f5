"""Logical types of a contract -> Arrow, DuckDB and JSON types. Iceberg types follow from the Arrow types."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_data.contracts.contract import Contract

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


def duckdb_type(logical: str) -> str:
    return STORED[logical][1]


def json_type(logical: str) -> str:
    return STORED[logical][2]


def arrow_type(logical: str) -> "pa.DataType":
    """The Arrow type that a column of this logical type is stored as."""
    import pyarrow as pa

    if logical == "timestamp":
        return pa.timestamp("us", tz="UTC")
    if logical == "local timestamp":
        return pa.timestamp("us")
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
