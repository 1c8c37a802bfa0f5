"""Values of DuckDB types as they are stored, and as Arrow values again."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from recsys_data.sql import open_session

if TYPE_CHECKING:
    import pyarrow as pa

AS_THEY_ARE = re.compile(r"(U?(TINY|SMALL|BIG)?INT(EGER)?|FLOAT|DOUBLE|VARCHAR|BOOLEAN)(\[\])?")
MOMENTS = ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


def kept_as(kind: str, value: str) -> str:
    """SQL of what is stored of a value: a number, text, truth value, microseconds or days since 1970."""
    if AS_THEY_ARE.fullmatch(kind):
        return value
    if kind in MOMENTS:
        return f"epoch_us({value})"
    return f"date_diff('day', DATE '1970-01-01', {value})" if kind == "DATE" else f"{value}::VARCHAR"


@cache
def arrow_type(kind: str) -> "pa.DataType":
    """The Arrow type of values of a DuckDB type."""
    with open_session() as connection:
        return connection.sql(f"SELECT NULL::{kind} AS value").to_arrow_table().schema.field("value").type


def restored(values: Sequence[Any], kind: str, wanted: "pa.DataType") -> "pa.Array":
    """Stored values as an array of the type that `arrow_type` says."""
    import pyarrow as pa

    if AS_THEY_ARE.fullmatch(kind):
        return pa.array(values, wanted)
    if kind in MOMENTS:
        return pa.array(values, pa.int64()).cast(wanted)
    if kind == "DATE":
        return pa.array(values, pa.int32()).cast(wanted)
    texts = pa.array(values, pa.string())
    if pa.types.is_decimal(wanted):
        return texts.cast(wanted)
    with open_session() as connection:
        connection.register("given", pa.table({"value": texts}))
        found = connection.sql(f"SELECT CAST(value AS {kind}) AS value FROM given").to_arrow_table()
    return found.column("value").combine_chunks().cast(wanted)
