"""Merging partial aggregates at many moments at once, without meeting every row at every moment.

The moments that are asked of an entity are numbered 0 to n - 1 in time. What counts in lo <= t < hi counts at a range
of these numbers. Each range is cut into at most 2 log2(n) nodes, a node of level l being 2^l moments in a row; what
lies in one node is merged once; and a moment merges the log2(n) nodes above it. A hot entity with a million rows and
a million moments thus costs their sum times a logarithm, not their product.

Tables, all temporary: `moments` (e, m, t, rank, n): entity, number of the moment, microseconds, number within the
entity, number of moments of the entity. `pieces` (e, k, lo, hi, ...): what counts, for the span k.
"""

from collections.abc import Iterable, Mapping, Sequence

from recsys_data.contracts.features.functions import State
from recsys_data.sql import quote


def numbered(moments: str, first: int, end: int) -> str:
    """SQL of the moments from number `first` until before `end`, with `rank` and `n` among those of their entity."""
    return f"""SELECT e, m, t, row_number() OVER (PARTITION BY e ORDER BY t) - 1 AS rank,
        count(*) OVER (PARTITION BY e) AS n
        FROM {moments} WHERE m >= {first} AND m < {end}"""


def ranges(rows: str, spans: Iterable[tuple[int, str, str]], moments: str, near: str = "") -> str:
    """SQL of the pieces that count at any moment, with the range `a` until before `b`, and the first moment, `at_a`.

    Args:
        rows: SQL with `e`.
        spans: (span, lo, hi), SQL over a row: each row is a piece for each of them.
        moments: name of their table.
        near: SQL condition on `lo` and `hi` by which pieces are left out that count at no moment.
    """
    # Each ASOF join sorts what it joins: a row once for all spans that begin with it, and then only what counts at all.
    by_lo: dict[str, list[str]] = {}
    for k, lo, hi in spans:
        by_lo.setdefault(lo, []).append(f"{{'k': {k}, 'hi': {hi}}}")

    def first(begun: str) -> str:
        return f"""SELECT r.*, first.rank AS a, first.n AS "#n", first.t AS at_a
            FROM ({begun}) r ASOF JOIN {moments} first ON r.e = first.e AND r.lo <= first.t"""

    found = []
    for lo, listed in by_lo.items():
        each = f"SELECT *, unnest([{', '.join(listed)}], recursive := true)"
        begun = f"SELECT *, {lo} AS lo FROM ({rows})"
        pieces = (
            first(f"SELECT * FROM ({each} FROM ({begun})) WHERE {near}") if near else f"{each} FROM ({first(begun)})"
        )
        found.append(f"SELECT * FROM ({pieces}) WHERE hi IS NULL OR at_a < hi")
    return f"""SELECT p.* EXCLUDE (lo, hi, "#n"), coalesce(past.rank, p."#n") AS b
        FROM ({" UNION ALL BY NAME ".join(found)}) p ASOF LEFT JOIN {moments} past ON p.e = past.e AND p.hi <= past.t"""


def near(moments: str, hop: int) -> str:
    """SQL condition on `lo` and `hi`: true of all pieces that count at a moment, and of few others within a hop.

    Args:
        moments: SQL of one column, numbers of the hops in which there are moments: t // hop.
        hop: its length in microseconds.
    """
    first, last = f"lo // {hop}", f"(hi - 1) // {hop}"
    return f"hi IS NULL OR {last} - {first} > 1 OR {first} IN ({moments}) OR {last} IN ({moments})"


def gathered(ranged: str, states: Mapping[State, Sequence[int]], at: str, merge: bool = False) -> str:
    """SQL of the pieces of the same range as one, with the states that their spans need.

    Args:
        ranged: SQL of `ranges`.
        states: with the spans that need them.
        at: SQL of the moment that a piece refers to.
        merge: the pieces hold states; otherwise they are rows.
    """
    columns = []
    for state, spans in states.items():
        needed = f"k IN ({', '.join(map(str, spans))})"
        if merge:
            sql = state.merge.format(s=f"(CASE WHEN {needed} THEN {quote(state.name)} END)", at=at, to="at_a")
        else:
            sql = f"{state.gather.format(at=at, to='at_a')} FILTER (WHERE {needed})"
        columns.append(f"{sql} AS {quote(state.name)}")
    return f"SELECT e, k, a, b, at_a, {', '.join(columns)} FROM ({ranged}) GROUP BY e, k, a, b, at_a"


def nodes(gathered: str, moments: str, states: Sequence[State]) -> str:
    """SQL of the nodes that the ranges are made of: (e, k, level, node, at, states), `at` being its first moment.

    At level l, a range begins with the node ceil(a / 2^l) if that is odd, and ends before the node floor(b / 2^l) with
    one of its own if that is odd; all others are halves of a node of the next level.
    """
    first, at = ("", "NULL::BIGINT")
    if any(state.decays for state in states):
        first, at = f"JOIN {moments} f ON f.e = c.e AND f.rank = c.node << c.level", "f.t"
    merged = merges(states, "at_a", at)
    return f"""WITH levels AS (SELECT *, unnest(range(0, 1 + floor(log2(b - a))::BIGINT)) AS level FROM ({gathered})),
        ends AS (SELECT *, (a + (1::BIGINT << level) - 1) >> level AS l, b >> level AS r FROM levels),
        cut AS (SELECT * EXCLUDE (l, r), unnest([CASE WHEN l < r AND l % 2 = 1 THEN l END,
            CASE WHEN l < r AND r % 2 = 1 THEN r - 1 END]) AS node FROM ends)
        SELECT c.e, k, level, node, {at} AS at, {merged} FROM cut c {first} WHERE node IS NOT NULL
        GROUP BY c.e, k, level, node{"" if at.startswith("NULL") else f", {at}"}"""


def answers(nodes: str, moments: str, states: Sequence[State]) -> str:
    """SQL of the states at each moment and span: (m, k, states); none where nothing counts."""
    return f"""WITH above AS (
            SELECT e, m, t, rank, unnest(range(0, 1 + floor(log2(n))::BIGINT)) AS level FROM {moments})
        SELECT m, k, {merges(states, "n.at", "above.t")} FROM above
        JOIN {nodes} n ON n.e = above.e AND n.level = above.level AND n.node = above.rank >> above.level
        GROUP BY m, k{", above.t" if any(state.decays for state in states) else ""}"""


def merges(states: Iterable[State], at: str, to: str) -> str:
    return ", ".join(f"{one.merge.format(s=quote(one.name), at=at, to=to)} AS {quote(one.name)}" for one in states)
