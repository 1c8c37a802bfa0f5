"""Lines of a log slice as Arrow text, for statements that read them."""

import contextlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.ingestion.log import LogSlice


def is_utf8(lines: LogSlice, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which lines are UTF-8; bytes that are not must stay out of sight of what trusts text."""
    valid = np.ones(len(lines), bool)
    text = pa.StringArray.from_buffers(
        len(lines), pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)
    )
    with contextlib.suppress(pa.ArrowInvalid):
        text.validate(full=True)
        return valid
    beyond_ascii = np.diff(np.searchsorted(np.flatnonzero(data >= 0x80), lines.bounds)) > 0
    for row in np.flatnonzero(beyond_ascii).tolist():
        try:
            str(lines.data[lines.bounds[row] : lines.bounds[row + 1]], "utf-8")
        except UnicodeDecodeError:
            valid[row] = False
    return valid


def lines_table(lines: LogSlice, rows: npt.NDArray[np.int64]) -> pa.Table:
    """These lines, which were found to be UTF-8, as text; their bytes are taken as they are."""
    buffers = [None, pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)]
    picked = pa.BinaryArray.from_buffers(pa.binary(), len(lines), buffers).take(pa.array(rows))
    return pa.table({"row": pa.array(rows, pa.int32()), "line": picked.view(pa.string())})


def places(found: npt.NDArray[np.int32], wanted: npt.NDArray[np.int32]) -> pa.Array:
    """Where each wanted row stands among the found ones."""
    order = np.argsort(found)
    return pa.array(order[np.searchsorted(found, wanted, sorter=order)])
