"""Pieces of many entities as arrays: merging, leaving out what is too old, and the bytes that are stored.

A piece is what a group keeps of one entity and one hop of time: numbers that are summed, the least hashes of a sketch,
the first or last values in an order. Merging does not depend on order or grouping, as for tiles.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from recsys_data.contracts.features.functions import GREATEST, SKETCH, State
from recsys_data.contracts.features.view import DAY
from recsys_data.serving.online.layout import ALL, MOMENT, NEVER, Group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

NARROW = (np.int8, np.int16, np.int32, np.int64)


@dataclass
class Elements:
    """Elements of lists: for each the number of its piece, its key, and its value, if that is not the key."""

    piece: "Numbers"
    key: "NDArray[Any]"
    value: "NDArray[Any] | None" = None

    def take(self, which: "NDArray[Any]", piece: "Numbers | None" = None) -> "Elements":
        """Some of them, in this order; `piece`: new numbers of their pieces."""
        value = None if self.value is None else self.value[which]
        return Elements(self.piece[which] if piece is None else piece[which], self.key[which], value)


@dataclass
class Pieces:
    """Pieces of a group.

    Attributes:
        entity: number of the entity of each.
        start: when it begins, in microseconds.
        whole: integers, shape (pieces, width).
        real: doubles, shape (pieces, decayed states).
        hashes: for each sketch, its elements.
        best: for each state that is the first or last in an order, its elements: sort key, value.
    """

    entity: "Numbers"
    start: "Numbers"
    whole: "NDArray[np.int64]"
    real: "NDArray[np.float64]"
    hashes: list[Elements]
    best: list[Elements]

    def __len__(self) -> int:
        return len(self.entity)


def none_of(group: Group) -> Pieces:
    """No pieces."""
    columns, none = group.columns, np.zeros(0, np.int64)
    return Pieces(
        none,
        none,
        np.zeros((0, columns.width), np.int64),
        np.zeros((0, len(columns.real))),
        [Elements(none, none) for _ in columns.hashes],
        [Elements(none, np.zeros(0, object), np.zeros(0, object)) for _ in columns.best],
    )


def joined(parts: Sequence[Pieces]) -> Pieces:
    """Pieces of several parts, not merged."""
    begins = np.cumsum([0, *map(len, parts)])

    def elements(lists: Sequence[list[Elements]]) -> list[Elements]:
        found = []
        for listed in zip(*lists, strict=True):
            piece = np.concatenate([one.piece + begin for one, begin in zip(listed, begins[:-1], strict=True)])
            values = [one.value for one in listed if one.value is not None]
            key = np.concatenate([one.key for one in listed])
            found.append(Elements(piece, key, np.concatenate(values) if values else None))
        return found

    return Pieces(
        np.concatenate([one.entity for one in parts]),
        np.concatenate([one.start for one in parts]),
        np.concatenate([one.whole for one in parts]),
        np.concatenate([one.real for one in parts]),
        elements([one.hashes for one in parts]),
        elements([one.best for one in parts]),
    )


def kept(pieces: Pieces, which: "NDArray[np.bool_]") -> Pieces:
    """Some of the pieces."""
    if which.all():
        return pieces
    place = np.cumsum(which) - 1

    def elements(listed: list[Elements]) -> list[Elements]:
        return [one.take(np.flatnonzero(which[one.piece]), place[one.piece]) for one in listed]

    return Pieces(
        pieces.entity[which],
        pieces.start[which],
        pieces.whole[which],
        pieces.real[which],
        elements(pieces.hashes),
        elements(pieces.best),
    )


def merged(group: Group, pieces: Pieces) -> Pieces:
    """One piece for each entity and start, in this order."""
    if not len(pieces):
        return pieces
    order = np.lexsort((pieces.start, pieces.entity))
    entity, start = pieces.entity[order], pieces.start[order]
    begins = np.append(True, (np.diff(entity) != 0) | (np.diff(start) != 0))
    first = np.flatnonzero(begins)
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(begins) - 1
    columns = group.columns
    whole = np.add.reduceat(pieces.whole[order], first, axis=0)
    # Otherwise they would count the updates that the rows came with.
    whole[:, columns.flags] = np.minimum(whole[:, columns.flags], 1)
    return Pieces(
        entity[first],
        start[first],
        whole,
        np.add.reduceat(pieces.real[order], first, axis=0),
        [least_hashes(Elements(place[one.piece], one.key)) for one in pieces.hashes],
        [
            best_of(state, Elements(place[one.piece], one.key, one.value))
            for state, one in zip(columns.best, pieces.best, strict=True)
        ],
    )


def least_hashes(elements: Elements) -> Elements:
    """The least different hashes of each piece, in order."""
    order = np.lexsort((elements.key, elements.piece))
    piece, key = elements.piece[order], elements.key[order]
    new = np.append(True, (np.diff(piece) != 0) | (np.diff(key) != 0))[: len(piece)]
    piece, key = piece[new], key[new]
    few = _rank(piece) < SKETCH
    return Elements(piece[few], key[few])


def best_of(state: State, elements: Elements) -> Elements:
    """The first elements of each piece in the order of the state, or the last ones, the very last first."""
    number = state.elements or 1
    if number > 1 or (len(elements.piece) and np.bincount(elements.piece).max() > 1):
        by_key = np.array(
            sorted(range(len(elements.key)), key=elements.key.__getitem__, reverse=state.merge == GREATEST), np.int64
        )
        order = by_key[np.argsort(elements.piece[by_key], kind="stable")]
    else:
        order = np.argsort(elements.piece, kind="stable")
    return elements.take(order[_rank(elements.piece[order]) < number])


def _rank(piece: "Numbers") -> "Numbers":
    """Of sorted numbers, how many equal ones come before each."""
    begins = np.flatnonzero(np.diff(piece, prepend=-1))
    return np.arange(len(piece)) - np.repeat(begins, np.diff(begins, append=len(piece)))


def in_hops(group: Group, pieces: Pieces) -> Pieces:
    """Pieces of single moments as pieces of the group, not merged."""
    if group.hop == MOMENT:
        return pieces
    start = np.zeros_like(pieces.start) if group.hop == ALL else pieces.start - pieces.start % group.hop
    columns, real = group.columns, pieces.real
    if columns.real:
        real = real.copy()
        for state, column in columns.real.items():
            # A sum that halves refers to the end of its piece.
            real[:, column] *= np.exp2((pieces.start + MOMENT - start - group.hop) / (state.half_life or DAY))
    return Pieces(pieces.entity, start, pieces.whole, real, pieces.hashes, pieces.best)


def settled(group: Group, pieces: Pieces, waiting: Pieces, now: int) -> tuple[Pieces, Pieces]:
    """Merged pieces without those that no window reaches any more, and what still waits for its time to come."""
    due = waiting.start < now - group.delay
    pieces = merged(group, joined([pieces, in_hops(group, kept(waiting, due))]))
    if group.reach < NEVER:
        pieces = kept(pieces, pieces.start + group.reach > now)
    return pieces, merged(group, kept(waiting, ~due))


class _Bytes(msgspec.Struct, array_like=True):
    start: bytes
    whole: bytes
    real: bytes
    hashes: list[tuple[bytes, bytes]]
    best: list[tuple[bytes, list[bytes], list[Any]]]


class _Stored(msgspec.Struct, array_like=True):
    groups: list[tuple[_Bytes, _Bytes | None]]


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Stored)


def encoded(groups: Sequence[tuple[Pieces, Pieces]], entities: int) -> list[bytes | None]:
    """The bytes of each entity, None if it has no pieces.

    Args:
        groups: for each group, merged pieces and what waits, by number of the entity.
        entities: how many there are.
    """
    lists = [(_slices(pieces, entities), _slices(waiting, entities)) for pieces, waiting in groups]
    found: list[bytes | None] = []
    for entity in range(entities):
        stored = [(pieces[entity], waiting[entity] if waiting else None) for pieces, waiting in lists]
        some = any(one.start or (two is not None and two.start) for one, two in stored)
        parts = [(one, two if two is not None and two.start else None) for one, two in stored]
        found.append(_encoder.encode(_Stored(parts)) if some else None)
    return found


def _slices(pieces: Pieces, entities: int) -> list[_Bytes]:
    bounds = np.searchsorted(pieces.entity, np.arange(entities + 1))
    if not len(pieces):
        none = _Bytes(b"", b"", b"", [(b"", b"")] * len(pieces.hashes), [(b"", [], [])] * len(pieces.best))
        return [none] * entities
    # Everything becomes bytes once, and each entity takes its part of them.
    ends = bounds.tolist()
    start, real, whole = pieces.start.tobytes(), pieces.real.tobytes(), _Narrow.of(pieces.whole, bounds)
    width = pieces.real.shape[1] * 8
    hashes = [_Elements.of(one, bounds, as_lists=False) for one in pieces.hashes]
    best = [_Elements.of(one, bounds, as_lists=True) for one in pieces.best]
    return [
        _Bytes(
            start[a * 8 : b * 8],
            whole.part(entity, a, b),
            real[a * width : b * width],
            [(one.pieces(entity), one.keys[one.at[entity] * 8 : one.at[entity + 1] * 8]) for one in hashes],
            [(one.pieces(entity), one.part(one.keys, entity), one.part(one.values, entity)) for one in best],
        )
        for entity, (a, b) in enumerate(itertools.pairwise(ends))
    ]


class _Elements(NamedTuple):
    """Elements of pieces, of which each entity has the range between two of `at`.

    Attributes:
        places: int32, as bytes: which piece of its entity an element belongs to.
        keys: int64, as bytes, or a list.
        values: a list, where keys are one.
    """

    at: list[int]
    places: bytes
    keys: Any
    values: list[Any]

    @classmethod
    def of(cls, one: Elements, bounds: "Numbers", as_lists: bool) -> "_Elements":
        at = np.searchsorted(one.piece, bounds)
        places = (one.piece - np.repeat(bounds[:-1], np.diff(at))).astype(np.int32).tobytes()
        if not as_lists:
            return cls(at.tolist(), places, one.key.tobytes(), [])
        values = one.key if one.value is None else one.value
        return cls(at.tolist(), places, one.key.tolist(), values.tolist())

    def part(self, values: list[Any], entity: int) -> list[Any]:
        return values[self.at[entity] : self.at[entity + 1]]

    def pieces(self, entity: int) -> bytes:
        return self.places[self.at[entity] * 4 : self.at[entity + 1] * 4]


class _Narrow(NamedTuple):
    """Rows of integers as bytes; those of an entity in the fewest that hold all of them, which their length tells.

    Attributes:
        width: integers in a row.
        kinds: by entity, the place of its type in NARROW.
        rows: all rows in each of these types; those that do not fit it are never read.
    """

    width: int
    kinds: list[int]
    rows: list[bytes]

    @classmethod
    def of(cls, whole: "Numbers", bounds: "Numbers") -> "_Narrow":
        width = whole.shape[1]
        most = np.zeros(len(bounds) - 1, np.int64)
        some = np.flatnonzero(np.diff(bounds))
        if width and len(some):
            largest = np.maximum(whole.max(axis=1), -whole.min(axis=1))
            most[some] = np.maximum.reduceat(largest, bounds[some])
        kinds = np.searchsorted([np.iinfo(one).max for one in NARROW], most)
        used = set(kinds.tolist())
        return cls(
            width, kinds.tolist(), [whole.astype(k).tobytes() if n in used else b"" for n, k in enumerate(NARROW)]
        )

    def part(self, entity: int, first: int, last: int) -> bytes:
        kind = self.kinds[entity]
        size = self.width * np.dtype(NARROW[kind]).itemsize
        return self.rows[kind][first * size : last * size]


def decoded(
    groups: Sequence[Group], blobs: Sequence[bytes], entities: "Numbers", wanted: Sequence[bool] | None = None
) -> list[tuple[Pieces, Pieces]]:
    """Pieces, and what waits, for each group.

    Args:
        groups: of the layout.
        blobs: as `encoded`.
        entities: the number of the entity that each of them belongs to, in ascending order.
        wanted: the groups that are decoded; of others there are no pieces. None: all.
    """
    stored = [_decoder.decode(blob) for blob in blobs]
    found = []
    for number, group in enumerate(groups):
        if wanted is not None and not wanted[number]:
            found.append((none_of(group), none_of(group)))
            continue
        both = [one.groups[number] for one in stored]
        pieces = _pieces(group, [one for one, _ in both], entities)
        late = [place for place, (_, two) in enumerate(both) if two is not None]
        waiting = [two for _, two in both if two is not None]
        found.append((pieces, _pieces(group, waiting, entities[late]) if late else none_of(group)))
    return found


def _pieces(group: Group, stored: Sequence[_Bytes], entities: "Numbers") -> Pieces:
    if not stored:
        return none_of(group)
    columns = group.columns
    starts, wholes, reals = zip(*[(one.start, one.whole, one.real) for one in stored], strict=True)
    start = np.frombuffer(b"".join(starts), np.int64)
    counts = np.array(list(map(len, starts)), np.int64) // 8
    begins = np.cumsum(counts) - counts
    whole = np.zeros((len(start), columns.width), np.int64)
    if columns.width:
        sizes = np.array(list(map(len, wholes)), np.int64) // np.maximum(counts * columns.width, 1)
        listed = sizes.tolist()
        for size in set(listed) - {0}:
            those = b"".join([one for one, its in zip(wholes, listed, strict=True) if its == size])
            whole[np.repeat(sizes == size, counts)] = np.frombuffer(those, f"i{size}").reshape(-1, columns.width)
    real = np.frombuffer(b"".join(reals), np.float64).reshape(len(start), len(columns.real))

    def places(parts: Sequence[bytes]) -> "Numbers":
        lengths = [len(one) // 4 for one in parts]
        return np.frombuffer(b"".join(parts), np.int32).astype(np.int64) + np.repeat(begins, lengths)

    hashes = []
    for number in range(len(columns.hashes)):
        listed = [one.hashes[number] for one in stored]
        key = np.frombuffer(b"".join([key for _, key in listed]), np.int64)
        hashes.append(Elements(places([piece for piece, _ in listed]), key))
    best = []
    for number in range(len(columns.best)):
        ordered = [one.best[number] for one in stored]
        best.append(
            Elements(
                places([piece for piece, _, _ in ordered]),
                _objects([key for _, keys, _ in ordered for key in keys]),
                _objects([value for _, _, values in ordered for value in values]),
            )
        )
    return Pieces(np.repeat(entities, counts), start, whole, real, hashes, best)


def _objects(values: Sequence[Any]) -> "NDArray[Any]":
    found = np.empty(len(values), object)
    found[:] = values
    return found
