"""Merging partial aggregates at many moments at once, without meeting every piece at every moment.

The moments of a part of the spine are numbered 0 to n - 1, by entity and time. A piece, that is a row or a tile, counts
in lo <= t < hi, hence at a range of these numbers, a until before b. Exact sums are added at a and taken away at b; the
running total is the sum at each moment. What cannot be taken away again is put on the nodes of a binary tree over the
moments, at most 2 log2(n) for each range, and handed down to the leaves once all pieces are there. A hot entity with a
million rows and a million moments thus costs their sum times a logarithm, not their product.

Data flow: `Moments.ranges` of a batch of pieces -> `add` of each state -> `result`, an array with a value or NULL for
each moment. Memory is that of the moments and one batch.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.features.functions import DECAYED, DISTINCT_LEAST, GREATEST, SUM, State
from recsys_data.errors import UserError
from recsys_data.features.intervals import FOREVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

# Candidates of a state that are kept before those that cannot win are dropped.
CANDIDATES = 2_000_000
# Pieces that are put on nodes at once, each on up to 40 or so.
SLICE = 100_000
# Entities times distinct moments up to which the ranges are looked up in a table: 80 MB.
CELLS = 10_000_000


class Ranges(NamedTuple):
    """At which moments pieces count.

    Attributes:
        pieces: positions in their batch.
        a: numbers of the first moments.
        b: numbers of the moments before which they end.
    """

    pieces: "Numbers"
    a: "Numbers"
    b: "Numbers"

    def only(self, places: "Numbers") -> "Ranges":
        """Those of the pieces that have a place, not -1, in a smaller batch."""
        pieces = places[self.pieces]
        kept = np.flatnonzero(pieces >= 0)
        return Ranges(pieces[kept], self.a[kept], self.b[kept])

    def slices(self) -> "Iterator[Ranges]":
        for first in range(0, len(self.pieces), SLICE):
            yield Ranges(*(one[first : first + SLICE] for one in self))


class Moments:
    """Moments in order of entity and time, and the tree over them: node i has the children 2i and 2i + 1.

    Args:
        entities: number of the entity of each.
        times: in microseconds.
    """

    def __init__(self, entities: "Numbers", times: "Numbers") -> None:
        self.count = len(times)
        self.size = 1 << max(0, self.count - 1).bit_length()
        self._first = int(entities[0]) if self.count else 0
        self._distinct, place = np.unique(times, return_inverse=True)
        self._stride = len(self._distinct) + 1
        self._keys = (entities - self._first) * self._stride + place
        cells = (int(entities[-1]) - self._first + 1) * self._stride if self.count else 0
        self._table = np.searchsorted(self._keys, np.arange(cells)) if cells <= CELLS else None
        # The first moment of what lies below each node.
        self.begins = np.zeros(2 * self.size, np.int64)
        self.begins[self.size : self.size + self.count] = times
        for first in self.levels()[-2::-1]:
            self.begins[first : 2 * first] = self.begins[2 * first : 4 * first : 2]

    def first(self, lo: "Numbers") -> "Numbers":
        """The first of the distinct moments that are not before `lo`, for `ranges`."""
        return np.searchsorted(self._distinct, lo)

    def ranges(self, entities: "Numbers", first: "Numbers", hi: "Numbers") -> Ranges:
        """The ranges of those pieces that count at any moment.

        Args:
            entities: of the pieces, all among those of the moments.
            first: what `first` gives of the moments from which on they count.
            hi: the moments from which on they do not count any more.
        """
        kept = np.flatnonzero(np.append(self._distinct, FOREVER)[first] < hi)
        base = (entities[kept] - self._first) * self._stride
        a = self._place(base + first[kept])
        b = self._place(base + np.searchsorted(self._distinct, hi[kept]))
        some = a < b
        return Ranges(kept[some], a[some], b[some])

    def _place(self, keys: "Numbers") -> "Numbers":
        return np.searchsorted(self._keys, keys) if self._table is None else self._table[keys]

    def nodes(self, a: "Numbers", b: "Numbers") -> "tuple[Numbers, Numbers]":
        """Nodes that together have exactly the moments of each range: positions of ranges, nodes."""
        ranges, found = np.arange(len(a)), []
        left, right = a + self.size, b + self.size
        while len(ranges):
            odd = (left & 1).astype(bool)
            found.append((ranges[odd], left[odd]))
            left = left + odd
            odd = (right & 1).astype(bool)
            right = right - odd
            found.append((ranges[odd], right[odd]))
            left, right = left >> 1, right >> 1
            open_ = left < right
            ranges, left, right = ranges[open_], left[open_], right[open_]
        whose, nodes = zip(*found, strict=True) if found else ((), ())
        empty = np.zeros(0, np.int64)
        return np.concatenate((empty, *whose)), np.concatenate((empty, *nodes))

    def levels(self) -> "list[int]":
        """The first node of each level, from the root down to the leaves."""
        return [1 << level for level in range(self.size.bit_length())]


# The ranges of a batch by span; pieces may count twice, never at the same moment.
BySpan = Mapping[int, Sequence[Ranges]]


class Merged(Protocol):
    """The states of one kind at all moments, for several spans."""

    def add(self, at: "Numbers", ranges: BySpan, values: pa.Array, keys: pa.Array) -> None:
        """Add a batch of pieces.

        Args:
            at: the moments that they refer to.
            ranges: of the batch.
            values: their states, none of them NULL.
            keys: what orders these.
        """
        ...

    def result(self, span: int) -> pa.Array:
        """The merged state at each moment, NULL where nothing counts."""
        ...


def merged(state: State, moments: Moments, kind: pa.DataType) -> Merged:
    """An empty state; `kind` is the type of its pieces."""
    if state.merge == SUM:
        return _Sum(moments, kind, state.argument)
    if state.merge == DECAYED:
        return _Decayed(moments, state.half_life or 1)
    return _Best(moments, kind, state.elements, state.merge == GREATEST, state.merge == DISTINCT_LEAST)


def add(
    batch: pa.RecordBatch,
    spans: Sequence[tuple[int, str, str]],
    moments: Moments,
    needed: Mapping[State, Sequence[int]],
    states: Mapping[State, Merged],
) -> None:
    """Add a batch of pieces to states.

    Args:
        batch: `e`, the entities; `at`, the moments that the pieces refer to; each state, and its `key`.
        spans: (span, column of lo, column of hi).
        moments: at which they are asked for.
        needed: states with the spans that need them.
        states: what is added to.
    """
    entities, at = batch["e"].to_numpy(), batch["at"].to_numpy()
    first = {lo: moments.first(batch[lo].to_numpy()) for lo in dict.fromkeys(lo for _, lo, _ in spans)}
    ranges: dict[int, list[Ranges]] = {}
    for span, lo, hi in spans:
        ranges.setdefault(span, []).append(moments.ranges(entities, first[lo], batch[hi].to_numpy()))
    for state, listed in needed.items():
        values, keys, own, own_at = batch[state.name], batch[f"{state.name} key"], ranges, at
        if values.null_count:
            there = values.is_valid()
            values, keys, some = values.filter(there), keys.filter(there), there.to_numpy(zero_copy_only=False)
            places, own_at = np.where(some, np.cumsum(some) - 1, -1), at[some]
            own = {span: [one.only(places) for one in ranges[span]] for span in listed}
        states[state].add(own_at, {span: own[span] for span in listed}, values, keys)


class _Totals(dict[tuple[int, int], "Numbers"]):
    """Running totals by what they are of: what is added at a and taken away at b."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    def __missing__(self, what: tuple[int, int]) -> "Numbers":
        self[what] = np.zeros(self._moments.count + 1, np.int64)
        return self[what]

    def add(self, what: tuple[int, int], a: "Numbers", b: "Numbers", amounts: "Numbers | int") -> None:
        np.add.at(self[what], a, amounts)
        np.subtract.at(self[what], b, amounts)

    def pop_total(self, what: tuple[int, int]) -> "Numbers":
        return np.cumsum(self.pop(what, self[what]))[:-1]


SEEN = -1


class _Sum:
    """Exact sums of integers or decimals, in limbs of 32 bits, of which 2^31 can be summed without overflow."""

    def __init__(self, moments: Moments, kind: pa.DataType, what: str) -> None:
        self._kind, self._what = kind, what
        self._totals = _Totals(moments)
        self._most = 1

    def add(self, at: "Numbers", ranges: BySpan, values: pa.Array, keys: pa.Array) -> None:
        limbs = limbs_of(values)
        self._most = max(self._most, len(limbs))
        for span, listed in ranges.items():
            for pieces, a, b in listed:
                self._totals.add((span, SEEN), a, b, 1)
                for number, limb in enumerate(limbs):
                    self._totals.add((span, number), a, b, limb[pieces])

    def result(self, span: int) -> pa.Array:
        seen = self._totals.pop_total((span, SEEN)) > 0
        limbs = [self._totals.pop_total((span, number)) for number in range(self._most)]
        if pa.types.is_integer(self._kind):
            total = sum(limb << 32 * number for number, limb in enumerate(limbs))
            return pa.array(total, pa.int64(), mask=~seen)
        return decimals(limbs, seen, self._kind, self._what)


def decimals(limbs: "Sequence[Numbers]", seen: "NDArray[np.bool_]", kind: pa.DataType, what: str) -> pa.Array:
    """Sums of limbs of 32 bits as decimals of 38 digits; NULL where nothing was `seen`.

    Raises:
        UserError: a sum, which is of `what`, has more digits.
    """
    words = np.zeros((len(seen), 4), np.uint32)
    carry = np.zeros(len(seen), np.int64)
    for number in range(4):
        total = carry + limbs[number] if number < len(limbs) else carry
        words[:, number] = total & 0xFFFFFFFF
        carry = total >> 32
    # What is left is the sign.
    if np.any(carry != -(words[:, 3] >> 31).astype(np.int64)):
        raise UserError(f"A sum of {what} does not fit 38 digits; declare a smaller scale, or filter.")
    wide = pa.decimal128(38, kind.scale)
    return pa.Array.from_buffers(wide, len(seen), [pa.array(seen).buffers()[1], pa.py_buffer(words)])


def limbs_of(values: pa.Array) -> "list[Numbers]":
    """Integers or decimals as sums of limbs times 2^32 to the power of their place; the last one has the sign."""
    if pa.types.is_integer(values.type):
        words = [values.to_numpy()]
    else:
        raw = np.frombuffer(values.buffers()[1], np.int64)
        pairs = raw[2 * values.offset : 2 * (values.offset + len(values))].reshape(-1, 2)
        words = [pairs[:, 0], pairs[:, 1]]
        if np.array_equal(words[0] >> 63, words[1]):
            del words[1]
    if len(words) == 1 and np.array_equal(words[0].astype(np.int32), words[0]):
        return words
    limbs = [part for word in words for part in (word & 0xFFFFFFFF, (word >> 32) & 0xFFFFFFFF)]
    return [*limbs[:-1], words[-1] >> 32]


class _Decayed:
    """Sums that halve with time. A node refers to its first moment, so that no weight exceeds 1."""

    def __init__(self, moments: Moments, half_life: int) -> None:
        self._moments, self._half_life = moments, half_life
        self._sums: defaultdict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2 * moments.size))
        self._totals = _Totals(moments)

    def add(self, at: "Numbers", ranges: BySpan, values: pa.Array, keys: pa.Array) -> None:
        amounts = values.to_numpy()
        for span, listed in ranges.items():
            for pieces, a, b in (part for one in listed for part in one.slices()):
                self._totals.add((span, SEEN), a, b, 1)
                whose, nodes = self._moments.nodes(a, b)
                pieces = pieces[whose]
                weights = self._weights(at[pieces], self._moments.begins[nodes])
                np.add.at(self._sums[span], nodes, amounts[pieces] * weights)

    def result(self, span: int) -> pa.Array:
        begins, sums = self._moments.begins, self._sums.pop(span, self._sums[span])
        for first in self._moments.levels()[1:]:
            parents, children = slice(first // 2, first), slice(first, 2 * first)
            weights = self._weights(np.repeat(begins[parents], 2), begins[children])
            sums[children] += np.repeat(sums[parents], 2) * weights
        leaves = sums[self._moments.size :][: self._moments.count]
        return pa.array(leaves, mask=self._totals.pop_total((span, SEEN)) == 0)

    def _weights(self, at: "Numbers", to: "Numbers") -> "NDArray[np.float64]":
        # Nodes of several entities hold nothing; their moments do not grow.
        return np.exp2(np.minimum(at - to, 0) / self._half_life)


class _Best:
    """The first `number` states in an order, from the end if `greatest`, each once if `distinct`.

    Without a number, pieces and result are single states; otherwise they are lists.
    """

    def __init__(self, moments: Moments, kind: pa.DataType, number: int, greatest: bool, distinct: bool) -> None:
        self._moments, self._kind = moments, kind
        self._number, self._greatest, self._distinct = number, greatest, distinct
        self._found: defaultdict[int, list[tuple[Numbers, pa.Array, pa.Array]]] = defaultdict(list)

    def add(self, at: "Numbers", ranges: BySpan, values: pa.Array, keys: pa.Array) -> None:
        lengths = begins = np.zeros(0, np.int64)
        if self._number:
            lengths = pc.list_value_length(values).to_numpy()
            begins = np.cumsum(lengths) - lengths
            values, keys = values.flatten(), keys.flatten()
        ranks, example = self._ranks(keys)
        for span, listed in ranges.items():
            found = self._found[span]
            for pieces, a, b in (part for one in listed for part in one.slices()):
                whose, nodes = self._moments.nodes(a, b)
                whose = pieces[whose]
                if self._number:
                    many = lengths[whose]
                    nodes = np.repeat(nodes, many)
                    whose = np.repeat(begins[whose] - np.cumsum(many) + many, many) + np.arange(len(nodes))
                codes = self._first(nodes * len(example) + ranks[whose], len(example))
                there = pa.array(example[codes % len(example)])
                found.append((codes // len(example), values.take(there), keys.take(there)))
            if len(found) > 1 and sum(len(nodes) for nodes, *_ in found) > CANDIDATES:
                nodes, ranks_, some, places = self._ranked(span)
                codes = self._first(nodes * len(some) + ranks_, len(some))
                left = pa.array(codes % len(some))
                self._found[span] = [(codes // len(some), some.take(left), places.take(left))]

    def result(self, span: int) -> pa.Array:
        if not self._found[span]:
            return pa.nulls(self._moments.count, self._kind)
        nodes, ranks, values, _ = self._ranked(span)
        if not self._number:
            return values.take(_least(self._moments, nodes, ranks))
        codes = self._first(nodes * len(values) + ranks, len(values))
        above = codes[:0]
        for first in self._moments.levels():
            nodes = above // len(values)
            own = codes[slice(*np.searchsorted(codes, (first * len(values), 2 * first * len(values))))]
            children = (above + nodes * len(values), above + (nodes + 1) * len(values))
            above = self._first(np.concatenate((*children, own)), len(values))
        moments, ranks = above // len(values) - self._moments.size, above % len(values)
        offsets = np.searchsorted(moments, np.arange(self._moments.count + 1))
        none = pa.array(np.diff(offsets) == 0)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(ranks)), mask=none)

    def _ranked(self, span: int) -> "tuple[Numbers, Numbers, pa.Array, pa.Array]":
        """Nodes and ranks of what was found, and values and keys by rank."""
        nodes, values, keys = zip(*self._found.pop(span), strict=True)
        keys = pa.concat_arrays(keys)
        ranks, example = self._ranks(keys)
        by_rank = pa.array(example)
        return np.concatenate(nodes), ranks, pa.concat_arrays(values).take(by_rank), keys.take(by_rank)

    def _ranks(self, keys: pa.Array) -> "tuple[Numbers, Numbers]":
        """Ranks from 0 on, equal where keys are, and a position for each rank."""
        ranks = pc.rank(keys, tiebreaker="dense").to_numpy().astype(np.int64) - 1
        ranks = ranks.max(initial=0) - ranks if self._greatest else ranks
        example = np.zeros(ranks.max(initial=-1) + 1, np.int64)
        example[ranks] = np.arange(len(ranks))
        return ranks, example

    def _first(self, codes: "Numbers", values: int) -> "Numbers":
        """The first of each node, in order."""
        codes = np.unique(codes) if self._distinct else np.sort(codes)
        nodes = codes // max(1, values)
        begins = np.flatnonzero(np.diff(nodes, prepend=-1))
        place = np.arange(len(codes)) - np.repeat(begins, np.diff(begins, append=len(codes)))
        return codes[place < (self._number or 1)]


def _least(moments: Moments, nodes: "Numbers", ranks: "Numbers") -> pa.Array:
    """The least rank at each moment, NULL where there is none."""
    none = ranks.max(initial=0) + 1
    tree = np.full(2 * moments.size, none)
    np.minimum.at(tree, nodes, ranks)
    for first in moments.levels()[1:]:
        children = tree[first : 2 * first]
        np.minimum(children, np.repeat(tree[first // 2 : first], 2), out=children)
    leaves = tree[moments.size :][: moments.count]
    return pa.array(leaves, mask=leaves == none)
