"""JSON texts of a column -> which of them have an object in which a key stands twice.

Vectorised: the keys of a text are hashed, and only texts in which a hash stands twice, in whatever objects, are parsed.
The texts are those that DuckDB writes: strict JSON without blanks between the values.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.ingestion.streaming.decoding.value_counts import BLOCK_BYTES
from recsys_data.repeated_keys import repeated_key

Mask = npt.NDArray[np.bool_]
# A key's hash is the sum over its bytes: equal keys have equal hashes, and other keys hardly ever.
_WEIGHTS = np.random.default_rng(0).integers(1, 2**63, 256, np.uint64)
_ROW = np.uint64(0x9E3779B97F4A7C15)


def repeats_key(column: pa.ChunkedArray) -> Mask:
    """Which rows of a text column repeat a key; bool, shape (rows,)."""
    found = [np.zeros(0, bool)]
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        mask = np.zeros(len(chunk), bool)
        if data is not None and chunk.null_count < len(chunk):
            bounds = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            values = np.frombuffer(data, np.uint8)
            for row in _suspects(values, bounds).tolist():
                mask[row] = repeated_key(values[bounds[row] : bounds[row + 1]].tobytes()) is not None
        found.append(mask)
    return np.concatenate(found)


def _suspects(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    found, first = [np.zeros(0, np.int64)], 0
    while first < len(bounds) - 1:
        # Blocks that stay in the processor's cache are several times faster than the whole.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_BYTES)))
        last = min(last, len(bounds) - 1)
        part = _suspects_of_block(data[bounds[first] : bounds[last]], bounds[first : last + 1] - bounds[first])
        found.append(first + part)
        first = last
    return np.concatenate(found)


def _suspects_of_block(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    quotes = np.flatnonzero(data == ord('"'))
    keys = np.flatnonzero(data.take(quotes + 1, mode="clip") == ord(":"))
    # The first quote opens.
    keys = keys[keys > 0]
    closing, first = quotes[keys], quotes[keys - 1] + 1
    # The bytes of all keys, back to back: they are a small part of the text.
    ends = np.cumsum(closing - first)
    begins = ends - (closing - first)
    places = np.repeat(first - begins, closing - first) + np.arange(ends[-1] if len(ends) else 0)
    sums = np.zeros(len(places) + 1, np.uint64)
    np.cumsum(_WEIGHTS[data[places]], out=sums[1:])
    rows = np.searchsorted(bounds, closing, side="right") - 1
    hashes = (sums[ends] - sums[begins]) ^ (rows.astype(np.uint64) * _ROW)
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    suspects = np.zeros(len(bounds) - 1, bool)
    if len(twice):
        suspects[rows[np.isin(hashes, twice)]] = True
    # Behind a backslash a quote may belong to the text, so that keys are not found by their quotes.
    slashes = np.flatnonzero(data == ord("\\"))
    suspects[np.searchsorted(bounds, slashes, side="right") - 1] = True
    return np.flatnonzero(suspects)
