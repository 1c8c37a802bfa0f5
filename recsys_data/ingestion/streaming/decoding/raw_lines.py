"""Lines of a log slice as Arrow text, for statements that read them."""

import contextlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.ingestion.streaming.log import LogSlice

# DuckDB takes so many lines at a time, and holds their JSON many times over; of long lines it gets fewer.
VECTOR_LINES = 2048
VECTOR_BYTES = 3_000_000
# Lines that are found to be UTF-8 together; only if they are not, each is checked.
CHECKED_AT_ONCE = 256


def is_utf8(lines: LogSlice, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which lines are UTF-8; bytes that are not must stay out of sight of what trusts text."""
    valid = np.ones(len(lines), bool)
    text = pa.StringArray.from_buffers(
        len(lines), pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)
    )
    for first in range(0, len(lines), CHECKED_AT_ONCE):
        with contextlib.suppress(pa.ArrowInvalid):
            text.slice(first, CHECKED_AT_ONCE).validate(full=True)
            continue
        bounds = lines.bounds[first : first + CHECKED_AT_ONCE + 1]
        high = np.flatnonzero(data[bounds[0] : bounds[-1]] >= 0x80) + bounds[0]
        for row in (first + np.flatnonzero(np.diff(np.searchsorted(high, bounds)))).tolist():
            try:
                str(lines.data[lines.bounds[row] : lines.bounds[row + 1]], "utf-8")
            except UnicodeDecodeError:
                valid[row] = False
    return valid


def lines_table(lines: LogSlice, shown: npt.NDArray[np.bool_]) -> pa.Table:
    """All lines as text, as the bytes are; NULL but for those that are `shown`, which were found to be UTF-8."""
    validity = pa.py_buffer(np.packbits(shown, bitorder="little"))
    buffers = [validity, pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)]
    text = pa.StringArray.from_buffers(len(lines), *buffers[1:], buffers[0])
    return pa.table({"row": pa.array(np.arange(len(lines), dtype=np.int32)), "line": text})


def raw_lines(lines: LogSlice, rows: npt.NDArray[np.integer]) -> pa.Array:
    """Some of the lines as bytes, without their newlines; binary, shape (len(rows),)."""
    ends = lines.bounds[1:]
    data = np.frombuffer(lines.data, np.uint8)
    # Every second value is what ends a line, so that one copy takes the lines without it.
    offsets = np.empty(2 * len(lines) + 1, np.int32)
    offsets[0::2] = lines.bounds
    offsets[1::2] = ends - ((ends > lines.bounds[:-1]) & (data[ends - 1] == ord("\n")))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(lines.data)]
    return pa.BinaryArray.from_buffers(pa.binary(), 2 * len(lines), buffers).take(pa.array(2 * rows.astype(np.int64)))


def pieces(lines: LogSlice) -> list[range]:
    """What is given to a statement at once: all lines, or runs of fewer where some are long."""
    bounds = lines.bounds
    window = min(VECTOR_LINES, len(lines))
    if not window or (bounds[window:] - bounds[:-window]).max() <= VECTOR_BYTES:
        return [range(len(lines))]
    cuts = np.searchsorted(bounds, np.arange(bounds[0], bounds[-1], VECTOR_BYTES)).tolist()
    return [range(first, end) for first, end in pairwise([*dict.fromkeys(cuts), len(lines)])]


def places(found: npt.NDArray[np.int32], wanted: npt.NDArray[np.int32]) -> pa.Array:
    """Where each wanted row stands among the found ones."""
    order = np.argsort(found)
    return pa.array(order[np.searchsorted(found, wanted, sorter=order)])
