"""The Arrow tables that models and metrics exchange, and their checked form as arrays of codes.

    interactions     user_id string, item_id string, timestamp timestamp[us, UTC], weight double[, session_id string]
    recommendations  query_id string, item_id string, score double, rank int32 (from 1)
    truth            query_id string, item_id string, gain double (relevant: greater than 0)

Row order never matters: ids are coded by their place among the sorted ids, and rows are sorted by codes.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import UserError

# A search among sorted ids takes about as long as looking at so many of them.
FEW = 200
INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("weight", pa.float64()),
    ]
)
RECOMMENDATIONS = pa.schema(
    [("query_id", pa.string()), ("item_id", pa.string()), ("score", pa.float64()), ("rank", pa.int32())]
)
TRUTH = pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("gain", pa.float64())])


def column(table: pa.Table, name: str, kind: pa.DataType, what: str) -> pa.Array:
    """One column as one array of `kind`.

    Args:
        table: any table.
        name: of the column.
        kind: what it is cast to.
        what: what the table is, for messages.

    Raises:
        UserError: the column is missing, has another type, or has nulls or NaN.
    """
    if name not in table.column_names:
        raise UserError(
            f"The {what} have the columns {', '.join(table.column_names) or 'none'}. Expected also {name} ({kind})."
        )
    values = table.column(name)
    try:
        found = pc.cast(values, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"Column {name} of the {what} is {values.type}. Expected {kind}: {error}") from None
    array = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    if isinstance(array, pa.ChunkedArray):
        # Text of more than 2 GiB does not fit into one array of 32-bit offsets.
        raise UserError(f"Column {name} of the {what} has more than 2 GiB of text. Pass fewer rows at once.")
    if array.null_count:
        raise UserError(f"Column {name} of the {what} has {array.null_count:,} nulls. Leave those rows out.")
    if pa.types.is_floating(kind) and not np.isfinite(array.to_numpy()).all():
        raise UserError(f"Column {name} of the {what} has values that are NaN or infinite. Leave those rows out.")
    return array


def ids(values: Any, what: str) -> pa.Array:
    """Ids given as an Arrow array or as any Python strings, as one array.

    Raises:
        UserError: one of them is null or not text.
    """
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        try:
            values = pa.array(list(values), pa.string())
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(f"The {what} are not all text: {error}") from None
    return column(pa.table({"id": values}), "id", pa.string(), what)


def vocabulary(arrays: Iterable[pa.Array]) -> pa.Array:
    """The distinct ids in the order of their UTF-8 bytes, which is also that of their code points."""
    distinct = pc.unique(pa.chunked_array(list(arrays), pa.string()))
    return distinct.take(pc.array_sort_indices(distinct))


def codes(values: pa.Array, known: pa.Array) -> np.ndarray:
    """The place of each id in `known` as int64; -1 where it is not there."""
    return pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def codes_of_few(values: pa.Array, known: pa.Array) -> np.ndarray:
    """As `codes`, of ids that are sorted as `vocabulary` has them; of few values it does not look at all that is known.

    >>> codes_of_few(pa.array(["b", "x"]), pa.array(["a", "b", "c"])).tolist()
    [1, -1]
    """
    if len(values) * FEW > len(known):
        return codes(values, known)
    found = np.full(len(values), -1, np.int64)
    for number, value in enumerate(values.to_pylist()):
        place = bisect_left(known, value, key=pa.StringScalar.as_py)
        if place < len(known) and known[place].as_py() == value:
            found[number] = place
    return found


def ranks(groups: np.ndarray) -> np.ndarray:
    """For rows sorted by `groups`: the place of each row in its group, from 1.

    >>> ranks(np.array([0, 0, 3, 3, 3]))
    array([1, 2, 1, 2, 3])
    """
    if not len(groups):
        return np.zeros(0, np.int64)
    begins = np.append(0, np.flatnonzero(groups[1:] != groups[:-1]) + 1)
    return np.arange(1, len(groups) + 1) - np.repeat(begins, np.diff(begins, append=len(groups)))
