"""Comparing snapshots in SQL: each with the state before it, any number of days in one statement.

Data flow: the rows that are open (`base`) and the `snapshots` of some days -> `events`, one for each key and day on
which its state began, ended or both -> the rows that are open afterwards, and those that were closed.
Everything is streamed and spilled by DuckDB; names of its own begin with #, which no column does.
"""

from collections.abc import Sequence
from datetime import date
from glob import escape
from pathlib import Path

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.batch.history.state import Applied, Known
from recsys_data.sql import literal, open_session, quote

# More threads would each need memory of their own, and the rest of the machine is consuming the stream.


class Comparison:
    """A DuckDB session in which snapshots of one dataset are compared.

    Args:
        contract: of the snapshots.
        folder: where DuckDB may spill.
        memory_bytes: what DuckDB may hold in memory.
    """

    def __init__(self, contract: Contract, folder: Path, memory_bytes: int) -> None:
        columns = [column for column in contract.columns if not column.system]
        self.key = [quote(column.name) for column in columns if column.key]
        self.states = [quote(column.name) for column in columns]
        self._values = [column for column in columns if not column.key]
        self.days = 0
        self._all_new = False
        self.connection = open_session(True, memory_bytes, folder / "spill", preserve_insertion_order=False)

    def close(self) -> None:
        self.connection.close()

    def known_at(self, snapshots: str) -> list[Known]:
        """Earliest and latest `as_of` of each day of `snapshots` (SQL); none for a day with rows that have none."""
        moment = "CASE WHEN count(as_of) = count(*) THEN epoch_us({}(as_of)) END"
        return self.connection.sql(
            f"SELECT snapshot_date, {moment.format('min')}, {moment.format('max')} FROM ({snapshots}) GROUP BY ALL"
        ).fetchall()

    def start(self, base: str) -> None:
        """Say which rows are open before: SQL with the columns of a state, valid_from and changed."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW base AS {base}")

    def add_snapshots(self, snapshots: str, days: Sequence[Applied]) -> None:
        """Say what comes next: SQL of the snapshots of these days, which are in the order in which they were known."""
        self.days = len(days)
        listed = ", ".join(f"(DATE '{t.day}', {n}, TIMESTAMPTZ '{t.as_of}')" for n, t in enumerate(days, start=1))
        run = self.connection.execute
        run(f'CREATE OR REPLACE TEMP TABLE days AS FROM (VALUES {listed}) AS t("#day", "#n", "#as_of")')
        run(
            f'CREATE OR REPLACE TEMP VIEW snapshots AS SELECT "#n", "#as_of", {", ".join(self.states)} '
            f'FROM ({snapshots}) JOIN days ON snapshot_date = "#day"'
        )

    def compare(self, nothing_before: bool = False) -> None:
        """Find what began and ended on each day; `nothing_before`: there are no rows to compare the first day with."""
        self._all_new = nothing_before and self.days == 1
        if self._all_new:
            return
        # A day is compared with the day before, which is the state that it changes; the first one with the base.
        states = ", ".join(self.states)
        before = f'SELECT 1 AS "#n", {states} FROM base'
        if self.days > 1:
            before += f' UNION ALL SELECT "#n" + 1, {states} FROM snapshots WHERE "#n" < {self.days}'
        same = " AND ".join(f"p.{key} = c.{key}" for key in [*self.key, '"#n"'])
        keys = ", ".join(f"coalesce(c.{key}, p.{key}) AS {key}" for key in self.key)
        values = "".join(f"c.{quote(column.name)}, " for column in self._values)
        differs = [(column.name, self._differs(column.name, column.type)) for column in self._values]
        changed = ", ".join(f"CASE WHEN {test} THEN {literal(name)} END" for name, test in differs) or "NULL::VARCHAR"
        either = " OR ".join(['p."#n" IS NULL', 'c."#n" IS NULL', *(test for _, test in differs)])
        self.connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE events AS
            SELECT {keys}, {values} coalesce(c."#n", p."#n") AS "#n",
                c."#n" IS NOT NULL AS "#opens", p."#n" IS NOT NULL AS "#closes",
                CASE WHEN "#opens" AND "#closes" THEN list_filter([{changed}], lambda name: name IS NOT NULL)
                     ELSE []::VARCHAR[] END AS changed
            FROM ({before}) p FULL JOIN snapshots c ON {same}
            WHERE {either}"""
        )

    def _differs(self, name: str, kind: str) -> str:
        old, new = f"p.{quote(name)}", f"c.{quote(name)}"
        test = f"{old} IS DISTINCT FROM {new}"
        if kind == "map":
            # The order of entries is chance. Most maps are equal as they stand, and are not sorted.
            test += f" AND list_sort(map_entries({old})) IS DISTINCT FROM list_sort(map_entries({new}))"
        return f"({test})"

    def counts(self) -> dict[date, tuple[int, int]]:
        """Rows opened and closed on each day on which there were any."""
        if self._all_new:
            found = self.connection.sql('SELECT "#day", count(*), 0 FROM snapshots JOIN days USING ("#n") GROUP BY ALL')
        else:
            found = self.connection.sql(
                'SELECT "#day", count(*) FILTER ("#opens"), count(*) FILTER ("#closes") '
                'FROM events JOIN days USING ("#n") GROUP BY ALL'
            )
        return {day: (opened, closed) for day, opened, closed in found.fetchall()}

    def unchanged(self) -> str:
        """SQL of the open rows where no snapshot is compared."""
        states = ", ".join(self.states)
        return f"SELECT {states}, valid_from, NULL::TIMESTAMPTZ AS valid_to, changed, true AS is_current FROM base"

    def current(self) -> str:
        """SQL of the rows that are open after the last day."""
        states = ", ".join(self.states)
        if self._all_new:
            return (
                f'SELECT {states}, "#as_of" AS valid_from, NULL::TIMESTAMPTZ AS valid_to, []::VARCHAR[] AS changed, '
                "true AS is_current FROM snapshots"
            )
        return (
            f"{self.unchanged()} ANTI JOIN events USING ({', '.join(self.key)}) UNION ALL BY NAME "
            f"SELECT {states}, valid_from, valid_to, changed, true AS is_current "
            f"FROM ({self._opened()}) WHERE valid_to IS NULL"
        )

    def closed(self) -> str:
        """SQL of the rows that were closed on one of the days."""
        states, keys = ", ".join(self.states), ", ".join(self.key)
        # What is open before ends with the first thing that happens to its key.
        ends = f'SELECT {keys}, min("#n") AS "#n" FROM events GROUP BY ALL'
        closed = (
            f'SELECT {states}, valid_from, "#as_of" AS valid_to, changed, false AS is_current '
            f'FROM base JOIN ({ends}) USING ({keys}) JOIN days USING ("#n")'
        )
        if self.days > 1:
            closed += (
                f" UNION ALL BY NAME SELECT {states}, valid_from, valid_to, changed, false AS is_current "
                f"FROM ({self._opened()}) WHERE valid_to IS NOT NULL"
            )
        return closed

    def _opened(self) -> str:
        """SQL of the rows that were opened on one of the days, each until the next event of its key."""
        keys, states = ", ".join(self.key), ", ".join(f"o.{state}" for state in self.states)
        ends = f'lead("#n") OVER (PARTITION BY {keys} ORDER BY "#n")' if self.days > 1 else "NULL::INTEGER"
        return (
            f'SELECT {states}, d."#as_of" AS valid_from, e."#as_of" AS valid_to, o.changed '
            f'FROM (SELECT *, {ends} AS "#ends" FROM events) o JOIN days d USING ("#n") '
            'LEFT JOIN days e ON o."#ends" = e."#n" WHERE o."#opens"'
        )

    def put_aside(self, path: Path) -> None:
        """Make the rows that are open after the days those that are open before the next ones."""
        target = literal(str(path))
        self.connection.execute(f"COPY ({self.current()}) TO {target} (FORMAT parquet, COMPRESSION lz4)")
        # DuckDB reads names as patterns.
        self.start(f"FROM read_parquet({literal(escape(str(path)))})")
