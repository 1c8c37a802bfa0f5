"""Counting the JSON values of each line by their kind, without parsing: the proof that decoding missed nothing.

DuckDB decodes JSON fast but leniently: it casts `"7"` to 7, ignores unknown keys and takes trailing commas.
So the values that it delivered for a line are counted by kind and compared with the values that stand in the
line. In strict JSON a value of an object follows `":`, and its first byte shows its kind. Where the counts
agree, every value was delivered under its own key and with its own type; where they do not, or where the
line is `ambiguous`, the strict decoder decides. `ambiguous` may be set needlessly, but is never missing.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.repeated_keys import repeated_key

STRING, NUMBER, BOOLEAN, OBJECT, ARRAY = range(5)
KINDS = 5
_NULL, _MINUS, _OTHER = 5, 6, 7

# Levels of objects and arrays in a line. Nobody needs more, and readers of JSON that call themselves for each
# level would fail on it.
MAX_DEPTH = 100

BLOCK_BYTES = 1 << 20

# Each line's counts travel in one integer, so that one running sum serves all kinds.
_BITS = 12
_MOST_KEYS = 2**_BITS - 1

_KIND_OF_BYTE = np.full(256, _OTHER, np.uint8)
_KIND_OF_BYTE[ord('"')] = STRING
_KIND_OF_BYTE[[ord(digit) for digit in "0123456789"]] = NUMBER
_KIND_OF_BYTE[[ord("t"), ord("f")]] = BOOLEAN
_KIND_OF_BYTE[ord("{")] = OBJECT
_KIND_OF_BYTE[ord("[")] = ARRAY
_KIND_OF_BYTE[ord("n")] = _NULL
_KIND_OF_BYTE[ord("-")] = _MINUS

_WEIGHT = np.array([1 << (_BITS * kind) for kind in range(KINDS)] + [0, 1 << _BITS, 0], np.uint64)

_IS_SPACE = np.zeros(256, bool)
_IS_SPACE[[ord(char) for char in " \t\r\n"]] = True
_IS_CLOSE = np.zeros(256, bool)
_IS_CLOSE[[ord("}"), ord("]")]] = True
_IS_DIGIT = np.zeros(256, bool)
_IS_DIGIT[[ord(digit) for digit in "0123456789"]] = True
_STARTS_WORD = np.zeros(256, bool)
_STARTS_WORD[[ord(char) for char in "nNiI-"]] = True


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """What stands in each line.

    Attributes:
        counts: int64, shape (lines, 5): values that follow a key, by kind (`STRING` ... `ARRAY`); nulls are
            not counted, because a null means the same as no member.
        ambiguous: bool, shape (lines,): the counts cannot be trusted, or the line may not be strict JSON.
    """

    counts: npt.NDArray[np.int64]
    ambiguous: npt.NDArray[np.bool_]


def count_values(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.integer]) -> ValueCounts:
    """Count the values of each line `data[bounds[i]:bounds[i + 1]]` (UTF-8 bytes)."""
    lines = len(bounds) - 1
    result = ValueCounts(np.zeros((lines, KINDS), np.int64), np.zeros(lines, bool))
    first = 0
    while first < lines and len(data):
        # Blocks that stay in the processor's cache are several times faster than the whole.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_BYTES)))
        last = min(last, lines)
        block = data[bounds[first] : bounds[last]]
        part = _count_block(block, bounds[first : last + 1] - bounds[first])
        result.counts[first:last] = part.counts
        result.ambiguous[first:last] = part.ambiguous
        first = last
    return result


def _count_block(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.integer]) -> ValueCounts:
    if len(data) == 0:
        return ValueCounts(np.zeros((len(bounds) - 1, KINDS), np.int64), np.zeros(len(bounds) - 1, bool))

    def at(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return data.take(positions, mode="clip")

    colons, brackets, slashes = (np.flatnonzero(data == character) for character in b":[\\")
    # Those before a member's key, nearly all of them, are never suspects.
    commas = np.flatnonzero((data[:-1] == ord(",")) & (data[1:] != ord('"')))
    before = at(colons - 1)
    keys = colons[before == ord('"')]
    kinds = _KIND_OF_BYTE[_behind(at, keys)]

    edges = np.searchsorted(keys, bounds)
    running = np.zeros(len(keys) + 1, np.uint64)
    np.cumsum(_WEIGHT[kinds], out=running[1:])
    packed = running[edges[1:]] - running[edges[:-1]]
    shifts = np.arange(KINDS, dtype=np.uint64) * np.uint64(_BITS)
    counts = ((packed[:, None] >> shifts) & np.uint64(_MOST_KEYS)).astype(np.int64)

    suspects = [
        keys[kinds == _OTHER],
        colons[_IS_SPACE[before]],
        _negative_words(at, keys[kinds == _MINUS]),
        _not_null(at, keys[kinds == _NULL]),
        _commas(at, commas),
        _elements(at, brackets, _behind(at, brackets)),
        _escaped_structure(at, slashes),
    ]
    ambiguous = np.diff(edges) > _MOST_KEYS
    # An object is the line itself, a value behind a key, or an element of an array that holds it.
    ambiguous |= 1 + counts[:, OBJECT] + 2 * np.diff(np.searchsorted(brackets, bounds)) > MAX_DEPTH
    ambiguous |= data[np.minimum(bounds[:-1], len(data) - 1)] != ord("{")
    found = np.concatenate(suspects)
    ambiguous[np.searchsorted(bounds, found, side="right") - 1] = True
    return ValueCounts(counts, ambiguous)


def _behind(at, separators):
    """The first byte behind each separator, past one blank."""
    first = at(separators + 1)
    blank = np.flatnonzero(_IS_SPACE[first])
    first[blank] = at(separators[blank] + 2)
    return first


def _value_start(at, separators):
    """Position of the first byte behind each separator, past one blank."""
    return separators + 1 + _IS_SPACE[at(separators + 1)]


def _negative_words(at, keys):
    """`-Infinity` is taken for a number by DuckDB and is not JSON."""
    return keys[~_IS_DIGIT[at(_value_start(at, keys) + 1)]]


def _not_null(at, keys):
    """`nan` is taken for a number by DuckDB and is not JSON."""
    return keys[at(_value_start(at, keys) + 1) != ord("u")]


def _commas(at, commas):
    """Commas before a closing bracket, before blanks that could hide one, or before a word."""
    behind = _behind(at, commas)
    return np.concatenate([commas[_IS_CLOSE[behind]], _elements(at, commas, behind)])


def _elements(at, separators, behind):
    """Separators before a word, or before several blanks, which could hide one."""
    return np.concatenate([separators[_IS_SPACE[behind]], _words(at, separators[_STARTS_WORD[behind]])])


def _words(at, separators):
    """`nan` or `inf...`, in any case, behind a separator: DuckDB takes them for numbers."""
    start = _value_start(at, separators)
    start += at(start) == ord("-")
    first, second, third = (at(start + step) | 0x20 for step in range(3))
    nan = (first == ord("n")) & (second == ord("a")) & (third == ord("n"))
    inf = (first == ord("i")) & (second == ord("n")) & (third == ord("f"))
    return separators[nan | inf]


def _escaped_structure(at, slashes):
    r"""`\u0022` and `\u003a`: a quote or a colon that DuckDB writes in another way when it repeats the text."""
    slashes = slashes[at(slashes + 1) == ord("u")]
    high, low = at(slashes + 4), at(slashes + 5) | 0x20
    zeros = (at(slashes + 2) == ord("0")) & (at(slashes + 3) == ord("0"))
    quote = (high == ord("2")) & (low == (ord("2") | 0x20))
    colon = (high == ord("3")) & (low == ord("a"))
    return slashes[zeros & (quote | colon)]


def count_text_values(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Values within JSON text, by kind; int64, shape (rows, 5)."""
    counts = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        if data is None:
            counts.append(np.zeros((len(chunk), KINDS), np.int64))
            continue
        bounds = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        counts.append(count_values(np.frombuffer(data, np.uint8), bounds).counts)
    return np.concatenate(counts) if counts else np.zeros((0, KINDS), np.int64)


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
