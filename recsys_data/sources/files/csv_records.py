"""CSV bytes -> whole rows that have as many cells as the header, and the lines that are not part of such a row.

A quote opens a cell only at its beginning, and only a delimiter or a line end may follow the quote that closes it;
quotes elsewhere are characters. If text follows a closing quote, nobody can say where the row ends: every line of it
is rejected. NumPy finds the rows of a block. Only a block with quotes elsewhere is read row by row.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recsys_data.errors import UserError

BLOCK_BYTES = 1024 * 1024
MAX_ROW_BYTES = 8 * 1024 * 1024
QUOTE, NEWLINE, RETURN = b'"\n\r'
QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line of a row that cannot be read.

    Attributes:
        line: its number in the file, from 1.
        why: what was found, and what was expected.
        text: the line.
    """

    line: int
    why: str
    text: str


@dataclass(slots=True)
class Piece:
    """The next rows of a file.

    Attributes:
        good: those that fit, as CSV without a header.
        rows: how many they are.
        broken: those that do not: the number of the first line, why, and the text.
    """

    good: bytes = b""
    rows: int = 0
    broken: list[tuple[int, str, bytes]] = field(default_factory=list)

    def rejected(self) -> Iterator[Rejected]:
        """The lines of the broken rows."""
        for line, why, text in self.broken:
            lines = text.splitlines()
            more = f" (quotes hold lines {line} to {line + len(lines) - 1} together)" if len(lines) > 1 else ""
            for number, one in enumerate(lines):
                if one:
                    yield Rejected(line + number, why + more, one.decode("utf-8", "replace"))


class Splitter:
    """Splits the bytes of one file behind its header.

    Args:
        path: named in errors.
        delimiter: one ASCII character.
        columns: cells of a row.
        quoted: whether quotes mean anything.
        line: number of the first line.
    """

    def __init__(self, path: str, delimiter: str, columns: int, quoted: bool, line: int) -> None:
        self.path = path
        self.columns = columns
        self.quoted = quoted
        self.line = line
        self._delimiter = delimiter.encode()
        mark = re.escape(self._delimiter)
        cell = rb'(?:%s|(?!")[^%s\r\n]*+)' % (QUOTED, mark)
        self._cell = re.compile(mark + cell)
        self._row = re.compile(rb"%s(?:%s%s)*+(?=[\r\n]|\Z)" % (cell, mark, cell))
        # The cells before, and the quoted cell that something follows.
        self._broken = re.compile(rb'(?:%s%s)*+"[^"]*+(?:""[^"]*+)*+("?)' % (cell, mark))
        self._line = re.compile(rb"[^\r\n]*+(\r\n|\r|\n|\Z)")

    def pieces(self, read: Callable[[int], bytes]) -> Iterator[Piece]:
        """All rows, about `BLOCK_BYTES` at a time.

        Raises:
            UserError: a quote is never closed, or a row has more than `MAX_ROW_BYTES`.
        """
        rest = b""
        while True:
            block = read(BLOCK_BYTES)
            rest += block
            piece, used = self._split(rest, last=not block)
            if piece.rows or piece.broken:
                yield piece
            rest = rest[used:]
            if not block:
                return
            if len(rest) > MAX_ROW_BYTES:
                raise UserError(
                    f"{self.path} cannot be read as CSV: the row that starts on line {self.line} has more than "
                    f"{MAX_ROW_BYTES} bytes. Look for a quote that is not closed."
                )

    def _split(self, data: bytes, last: bool) -> tuple[Piece, int]:
        """The rows that are whole, and how many bytes of `data` they took."""
        values = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(values == QUOTE) if self.quoted else np.zeros(0, np.int64)
        if not self._regular(values, quotes):
            return self._one_by_one(data, last)
        if last and len(quotes) % 2:
            raise self._open(self.line + _line_ends(data[: quotes[-1]]))
        ends = _ends(data, values, last)
        stops = _outside(ends, quotes) + 1
        if last and len(data) and not (len(stops) and stops[-1] == len(data)):
            stops = np.append(stops, len(data))
        if not len(stops):
            return Piece(), 0
        starts = np.concatenate([[0], stops[:-1]])
        marks = _outside(np.flatnonzero(values == self._delimiter[0]), quotes)
        cells = np.searchsorted(marks, stops) - np.searchsorted(marks, starts) + 1
        first = values[starts]
        blank = ((first == NEWLINE) | (first == RETURN)) & (cells == 1)
        bad = np.flatnonzero((cells != self.columns) & ~blank)
        lines = self.line + np.searchsorted(ends, starts[bad])
        self.line += int(np.searchsorted(ends, stops[-1]))
        used = int(stops[-1])
        good = _without(data, used, starts[bad].tolist(), stops[bad].tolist())
        piece = Piece(good, len(stops) - len(bad) - int(np.count_nonzero(blank)))
        for row, line in zip(bad.tolist(), lines.tolist(), strict=True):
            piece.broken.append((line, self._cells(cells[row]), data[starts[row] : stops[row]]))
        return piece, used

    def _regular(self, values: Bytes, quotes: Places) -> bool:
        """Whether every quote opens or closes a cell, or is one of two within: every other one then opens."""
        if not len(quotes):
            return True
        opening, closing = quotes[::2], quotes[1::2]
        limits = np.zeros(256, bool)
        limits[[NEWLINE, RETURN, QUOTE, self._delimiter[0]]] = True
        before, after = values.take(opening - 1, mode="clip"), values.take(closing + 1, mode="clip")
        # Between a closing quote and the next there is something, unless the two are one character.
        doubled = np.zeros(len(opening), bool)
        doubled[1:] = opening[1:] == closing[: len(opening) - 1] + 1
        opens = (opening == 0) | doubled | (limits[before] & (before != QUOTE))
        # What follows the last byte is not known, or nothing.
        closes = limits[after] | (closing == len(values) - 1)
        return bool(opens.all() and closes.all())

    def _one_by_one(self, data: bytes, last: bool) -> tuple[Piece, int]:
        """As `_split`, for data in which quotes stand elsewhere."""
        piece, parts = Piece(), []
        at = kept = counted = 0
        while at < len(data):
            row = self._row.match(data, at)
            why, stop = (None, row.end()) if row else self._broken_row(data, at, last)
            if stop is None:
                break
            found = self._line.match(data, stop)
            # A carriage return at the end may be the first half of a line end.
            if found is None or (not last and (found[1] == b"" or (found[1] == b"\r" and found.end() == len(data)))):
                break
            text = data[at : found.start(1)]
            if row and text:
                cells = len(self._cell.findall(self._delimiter + text))
                why = None if cells == self.columns else self._cells(cells)
            if why:
                parts.append(data[kept:at])
                self.line += _line_ends(data[counted:at])
                kept, counted = found.end(), at
                piece.broken.append((self.line, why, text))
            piece.rows += bool(text) and why is None
            at = found.end()
        self.line += _line_ends(data[counted:at])
        piece.good = b"".join([*parts, data[kept:at]])
        return piece, at

    def _broken_row(self, data: bytes, at: int, last: bool) -> tuple[str, int | None]:
        """Why no row starts here, and where the quoted cell ends that text follows; None if it is not all there yet."""
        found = self._broken.match(data, at)
        assert found is not None
        if not found[1]:
            if last:
                raise self._open(self.line + _line_ends(data[:at]))
            return "", None
        if found.end() == len(data) and not last:
            return "", None
        return "text after the quote that closes a cell; expected the delimiter or the end of the row", found.end()

    def _cells(self, found: int) -> str:
        return f"{found} cells; expected {self.columns}"

    def _open(self, line: int) -> UserError:
        return UserError(f"{self.path} cannot be read as CSV: a quote is not closed; see line {line}. Close it.")


def _ends(data: bytes, values: Bytes, last: bool) -> Places:
    """The last byte of each line end: LF, CRLF or CR."""
    ends = np.flatnonzero(values == NEWLINE)
    if b"\r" in data:
        returns = np.flatnonzero(values == RETURN)
        # One at the end may be the first half of a line end.
        returns = returns if last else returns[returns < len(values) - 1]
        lone = (returns == len(values) - 1) | (values.take(returns + 1, mode="clip") != NEWLINE)
        ends = np.sort(np.concatenate([ends, returns[lone]]))
    return ends


def _outside(places: Places, quotes: Places) -> Places:
    return places[np.searchsorted(quotes, places) % 2 == 0] if len(quotes) else places


def _without(data: bytes, used: int, starts: list[int], stops: list[int]) -> bytes:
    if not starts:
        return data[:used]
    return b"".join(data[start:stop] for start, stop in zip([0, *stops], [*starts, used], strict=True))


def _line_ends(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
