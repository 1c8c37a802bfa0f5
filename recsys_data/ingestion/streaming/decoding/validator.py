"""Events as leaves -> rows that keep to the contracts, and dead letters that say what the others break.

Data flow: leaves -> the SQL of the contracts, in a DuckDB session -> judged rows -> which are good, why the others are
not. An event that makes the SQL itself fail is found and becomes a dead letter; see `bisection.py`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.rules import session, set_variables
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.decoding.bisection import UNDECODABLE, describe, isolate
from recsys_data.ingestion.streaming.decoding.decoded import DeadLetter, DeadLetters, Decoded, Unjudged
from recsys_data.ingestion.streaming.decoding.event_sql import EventPlan
from recsys_data.ingestion.streaming.decoding.explain import Explainer, Raw

if TYPE_CHECKING:
    import duckdb

ADVICE = (
    "A rule or a computed column must have a value for whatever clients send: use TRY_CAST, or TRY(...), in the one "
    "that this is about."
)
Mask = npt.NDArray[np.bool_]


class Waiting(NamedTuple):
    """An event that waits to be judged, and the slice that it is of."""

    slice: Decoded
    event: Unjudged


class _Batch:
    """Events of several slices under numbers of their own.

    Attributes:
        leaves: their leaves, each under its number in place of its row.
        slices: the slices that they are of.
        owners: int64, shape (events,): the place in `slices` of the one that an event is of.
        rows: int32, shape (events,): its row there.
        raw: by slice and row, its line.
        outcomes: what was judged, slice by slice: rows with which of them are good, if any, and dead letters.
    """

    def __init__(self, waiting: Sequence[Waiting], leaves: pa.Table) -> None:
        self.waiting = waiting
        self.leaves = leaves
        self.slices = list({id(one.slice): one.slice for one in waiting}.values())
        places = {id(decoded): place for place, decoded in enumerate(self.slices)}
        self.owners = np.array([places[id(one.slice)] for one in waiting], np.int64)
        self.rows = np.array([one.event.row for one in waiting], np.int32)
        self.raw = [{event.row: event.raw for event in decoded.unjudged} for decoded in self.slices]
        self.outcomes: list[tuple[Decoded, list[tuple[pa.Table, Mask]], DeadLetters]] = []


class Judge:
    """Judges in a DuckDB session of its own; use one per thread."""

    def __init__(self, plan: EventPlan, first_day: date) -> None:
        self.plan = plan
        self.first_day = first_day
        # Made when it is needed: of the judges of a short drain some have nothing to do.
        self._made: duckdb.DuckDBPyConnection | None = None
        self._now: datetime | None = None
        self._exact = plan.judged("SELECT * FROM leaves", [])
        self._explainer = Explainer(plan)

    def begin(self, now: datetime) -> None:
        """Set what rules may refer to; `now` is UTC."""
        self._now = now
        if self._made:
            set_variables(self._made, self.first_day, now)

    def _session(self) -> "duckdb.DuckDBPyConnection":
        if self._made is None:
            self._made = session(confined=True)
            if self._now:
                self.begin(self._now)
        return self._made

    def query(self, statement: str, name: str, table: pa.Table) -> pa.Table:
        """The result of a statement that reads `table` by this name.

        Raises:
            Transient: memory or disk did not suffice.
            duckdb.Error: it fails on the rows.
            KeyboardInterrupt: Ctrl-C while it worked.
        """
        import duckdb

        used = self._session()
        used.register(name, table)
        try:
            return used.sql(statement).to_arrow_table()
        except duckdb.OperationalError as error:
            raise Transient(f"Events cannot be judged now: {error}. Free memory or disk, and start again.") from error
        except (duckdb.InternalError, duckdb.FatalException):
            # The session takes no other statement after such a one.
            self._made = None
            raise
        except RuntimeError as error:
            # So DuckDB tells of a signal that came while it worked; it must not pass for a line's fault.
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from None
            raise
        finally:
            if used is self._made:
                used.unregister(name)
            else:
                used.close()

    def settle(self, slices: Sequence[Decoded]) -> None:
        """Judge what was read one by one, of many slices at once, since planning the statement takes long.

        Raises:
            Permanent: the SQL of the contracts fails whatever the event.
        """
        waiting = [Waiting(decoded, event) for decoded in slices for event in decoded.unjudged]
        if not waiting:
            return
        self.begin(max(one.slice.now for one in waiting))
        batch = _Batch(waiting, self._leaves([one.event for one in waiting]))
        isolate(range(len(waiting)), partial(self._settle, batch), partial(self._give_up, batch))
        # All at once, or not at all: what fails for want of memory may be tried again.
        for decoded, parts, dead in batch.outcomes:
            decoded.parts.extend(parts)
            decoded.dead.extend(dead)
        for decoded in slices:
            decoded.unjudged.clear()

    def _settle(self, batch: "_Batch", numbers: Sequence[int]) -> None:
        """Judge the events of these numbers, which follow each other."""
        judged = self.query(self._exact, "leaves", batch.leaves.slice(numbers[0], len(numbers)))
        found = judged["row"].to_numpy()
        owners = batch.owners[found]
        outcomes = []
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            part = judged.filter(pa.array(mine))
            part = part.set_column(part.column_names.index("row"), "row", pa.array(batch.rows[found[mine]]))
            dead = DeadLetters()
            good = self.good(part, np.ones(len(part), bool), dead, partial(_raw_of, batch.raw[owner]))
            outcomes.append((batch.slices[owner], [(filled(part.select(self.plan.judged_columns)), good)], dead))
        batch.outcomes += outcomes

    def _give_up(self, batch: "_Batch", number: int, error: Exception) -> None:
        """Make a dead letter of an event that cannot be judged, unless nothing can.

        Raises:
            Permanent: the SQL fails without any event too.
        """
        import duckdb

        try:
            self.query(self._exact, "leaves", batch.leaves.slice(0, 0))
        except duckdb.Error as fault:
            raise Permanent(f"The SQL of the contracts fails whatever the event: {fault}. {ADVICE}") from fault
        detail = f"The SQL of the contracts fails on it: {describe(error)}. {ADVICE}"
        owner, event = batch.waiting[number]
        dead = DeadLetters()
        dead.append(DeadLetter(event.row, event.raw, UNDECODABLE, detail))
        batch.outcomes.append((owner, [], dead))

    def _leaves(self, events: Sequence[Unjudged]) -> pa.Table:
        """Their leaves, each event under its number in place of its row."""
        leaves = [one.leaves for one in events]
        occurring = set().union(*leaves)
        columns = {"row": pa.array(np.arange(len(events), dtype=np.int32))}
        for column in self.plan.leaves:
            name, kind = column.name, _leaf_type(column.type)
            given = name in occurring
            columns[name] = pa.array([one.get(name) for one in leaves], kind) if given else pa.nulls(len(events), kind)
        return pa.table(columns)

    def good(self, judged: pa.Table, proven: Mask, dead: DeadLetters, raw: Raw) -> Mask:
        """Which proven rows break no contract; the proven ones that do are explained in `dead`."""
        rejected = pc.is_valid(judged["reason"]).to_numpy()
        dead.extend(self._explainer.explain(judged, proven & rejected, raw))
        return proven & ~rejected


def filled(part: pa.Table) -> pa.Table:
    """Without the columns that are empty throughout, which would be copied for nothing."""
    return part.select([name for name in part.column_names if part[name].null_count < len(part)])


def _raw_of(raw: dict[int, bytes], rows: npt.NDArray[np.int32]) -> pa.Array:
    return pa.array([raw[row] for row in rows.tolist()], pa.binary())


def _leaf_type(logical: str) -> pa.DataType:
    if logical == "integer":
        return pa.int64()
    return {"number": pa.float64(), "boolean": pa.bool_()}.get(logical, pa.string())
