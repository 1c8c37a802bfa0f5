"""Values as Python database drivers give them -> Arrow columns, for `arrow.py` to cast to the contract's types.

Which Arrow type a column becomes is decided for each batch by the values in it, so that NULLs in the first rows
decide nothing; the contract's type, which it is cast to, is the same for all.
"""

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = frozenset({timedelta, time_of_day})


def arrow_of(values: Sequence[Any], logical: str) -> "pa.Array":
    """A column of values; numbers keep every digit, times their zone.

    >>> arrow_of([None, Decimal("1.50")], "decimal(10,2)").type
    Decimal128Type(decimal128(3, 2))
    """
    import pyarrow as pa

    kinds = {*map(type, values)} - {type(None)}
    if not kinds:
        return pa.nulls(len(values), pa.string())
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    if kind in (str, bool, float, date):
        return pa.array(values)
    if kind in (int, Decimal):
        return _numbers(values)
    if kind is datetime:
        aware = next(value for value in values if value is not None).tzinfo is not None
        return pa.array(values, pa.timestamp("us", "UTC" if aware else None))
    if kinds <= {bytes, bytearray, memoryview}:
        # BIT(1) of MySQL.
        bits = {b"\x00": False, b"\x01": True}
        if logical == "boolean" and {*values} - {None} <= bits.keys():
            return pa.array([bits.get(value) for value in values], pa.bool_())
        return pa.array(values, pa.binary())
    if kinds <= {dict, list, tuple}:
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values], pa.string())
    if kinds <= TEXT and logical != "string":
        return pa.array(values)
    return _texts(values)


def _numbers(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        pass
    try:
        # Integers beyond 64 bits.
        return pa.array([None if value is None else Decimal(value) for value in values])
    except pa.ArrowException:
        # Not a number at all, or beyond all decimals.
        return _texts(values)


def _texts(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    return pa.array([None if value is None else str(value) for value in values], pa.string())
