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


def lines_table(lines: LogSlice, shown: npt.NDArray[np.bool_]) -> pa.Table:
    """All lines as text, as the bytes are; NULL but for those that are `shown`, which were found to be UTF-8."""
    validity = pa.py_buffer(np.packbits(shown, bitorder="little"))
    buffers = [validity, pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)]
    text = pa.StringArray.from_buffers(len(lines), *buffers[1:], buffers[0])
    return pa.table({"row": pa.array(np.arange(len(lines), dtype=np.int32)), "line": text})


def places(found: npt.NDArray[np.int32], wanted: npt.NDArray[np.int32]) -> pa.Array:
    """Where each wanted row stands among the found ones."""
    order = np.argsort(found)
    return pa.array(order[np.searchsorted(found, wanted, sorter=order)])
