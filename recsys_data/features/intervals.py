"""From when until when a row or a tile counts: every condition on a moment t as one interval lo <= t < hi.

A row counts once it happened before t - delay, is known, and belongs to the entity, until it leaves the window. Where
there are tiles, a row counts for itself while its tile does not: at the head, before the hops of event time and of
known time are over, and, if the window rolls, at the tail, after the tile has left it. Intervals of a row and its tile
never overlap, and together they are exactly that of the row; this is why tiles and rows give identical values.

All of it is SQL over columns of `rows`, in microseconds; hi is NULL where it never ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from recsys_data.contracts.features.view import LIFETIME, ROLLING, Window

# The last microsecond that there is.
FOREVER = 2**63 - 1


@dataclass(frozen=True)
class Tiling:
    """Tiles that stand for rows.

    Attributes:
        hop: their length in microseconds.
        until: the moment up to which they are complete, in microseconds: what was known in a hop that ended later is
            in no tile.
    """

    hop: int
    until: int


@dataclass(frozen=True)
class Span:
    """A window with its delay, and whether it matters when rows were known."""

    window: Window
    delay: int
    commit: bool

    def of_row(self) -> tuple[str, str]:
        """The interval of a row."""
        return _greatest(f'"#ts" + {self.delay + 1}', self.commit and '"#known"', '"#since"'), _least(
            self._leaves('"#ts"'), '"#until"'
        )

    def of_row_beside(self, tiling: Tiling) -> list[tuple[str, str]]:
        """The intervals in which a row counts that its tile does not."""
        enters, leaves = self.of_row()
        tile = floor('"#ts"', tiling.hop)
        known = known_hop(tiling.hop)
        covered = f"{known} + {tiling.hop} <= {tiling.until}"
        begins = self._tile_enters(tile, known, tiling.hop)
        spans = [(enters, _least(leaves, f"CASE WHEN {covered} THEN {begins} END"))]
        if self.window.kind == ROLLING:
            after = _greatest(enters, self._leaves(tile), begins)
            spans.append((f"CASE WHEN {covered} THEN {after} ELSE {leaves} END", leaves))
        return spans

    def of_tile(self, tiling: Tiling) -> tuple[str, str]:
        """The interval of a tile, from its `#tile` and `#known`."""
        enters = _greatest(self._tile_enters('"#tile"', '"#known"', tiling.hop), '"#since"')
        return enters, _least(self._leaves('"#tile"'), '"#until"')

    def _tile_enters(self, tile: str, known: str, hop: int) -> str:
        return _greatest(f"{tile} + {hop + self.delay}", self.commit and f"{known} + {hop}")

    def _leaves(self, ts: str) -> str | None:
        """The first moment at which something that happened at `ts` is too old."""
        window = self.window
        if window.kind == LIFETIME:
            return None
        if window.kind == ROLLING:
            return f"{ts} + {window.size + self.delay + 1}"
        return f"{floor(ts, window.hop)} + {window.hop + window.size + self.delay}"


def beside(spans: Iterable[Span], tiling: Tiling, moments: str) -> str:
    """SQL condition that is true of all rows that count for themselves at some moment, and of few others.

    Args:
        spans: in which they count.
        tiling: of the tiles that stand for the others.
        moments: table whose `t` are the moments.
    """
    cuts = {f"(t - {span.delay})" for span in spans}
    # The last microsecond that a window does not reach.
    cuts |= {f"(t - {span.delay + span.window.size + 1})" for span in spans if span.window.kind == ROLLING}

    def hops(listed: Iterable[str]) -> str:
        return f"SELECT DISTINCT unnest([{', '.join(floor(one, tiling.hop) for one in listed)}]) FROM {moments}"

    happened, known = floor('"#ts"', tiling.hop), known_hop(tiling.hop)
    near = f"{happened} IN ({hops(sorted(cuts))}) OR {known} + {tiling.hop} > {tiling.until}"
    if any(span.commit for span in spans):
        near += f" OR {known} IN ({hops(['t'])})"
    return near


def floor(ts: str, hop: int) -> str:
    """SQL of the start of the hop of a moment, before 1970 too.

    >>> floor("ts", 60)
    '(ts - ((ts % 60) + 60) % 60)'
    """
    return f"({ts} - (({ts} % {hop}) + {hop}) % {hop})"


def known_hop(hop: int) -> str:
    """SQL of the start of the hop in which a row became known, never before that of its event time."""
    return _greatest(floor('"#known"', hop), floor('"#ts"', hop))


def _greatest(*terms: str | bool | None) -> str:
    """DuckDB's greatest and least leave NULLs out."""
    return f"greatest({', '.join(str(term) for term in terms if term)})"


def _least(*terms: str | None) -> str:
    return f"least({', '.join(term for term in terms if term)})"
