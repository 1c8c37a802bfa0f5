"""Deferred events of many slices -> candidates that keep to the contracts, and dead letters that say what others break.

Data flow: fields -> the SQL of the contracts, one statement for all slices, since planning it takes as long as
validating a thousand events -> the slices, with nothing deferred. An event that makes the SQL itself fail is found and
becomes a dead letter.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.decoding.decoded import Candidates, DeadLetters, Decoded, Deferred, filled
from recsys_data.ingestion.streaming.decoding.event_sql import EventSession
from recsys_data.ingestion.streaming.decoding.explain import UNDECODABLE, Explainer, describe, is_of_the_input

ADVICE = (
    "A rule or a computed column must have a value for whatever clients send: use TRY_CAST, or TRY(...), in the one "
    "that this is about."
)


class Validator:
    """Validates in a session that no other thread uses."""

    def __init__(self, session: EventSession) -> None:
        self.session = session
        self._schema = session.schema
        self._statement = session.schema.validated("SELECT * FROM fields", [])
        self._explainer = Explainer(session.schema)

    def validate(self, slices: Sequence[Decoded]) -> list[Decoded]:
        """The same slices with nothing deferred.

        Raises:
            Permanent: the SQL of the contracts fails whatever the event.
            Transient: memory or disk did not suffice.
        """
        events = [(owner, event) for owner, one in enumerate(slices) for event in one.deferred]
        if not events:
            return list(slices)
        self.session.begin(max(slices[owner].now for owner, _ in events))
        batch = _Batch(events, self._table([event for _, event in events]), len(slices))
        bisect(range(len(events)), partial(self._validate, batch), partial(self._bury, batch))
        return [
            replace(one, candidates=(*one.candidates, *candidates), deferred=(), dead=one.dead + dead)
            for one, candidates, dead in zip(slices, batch.candidates, batch.dead, strict=True)
        ]

    def _validate(self, batch: "_Batch", numbers: Sequence[int]) -> None:
        """Validate the events of these numbers, which follow each other."""
        validated = self.session.query(self._statement, "fields", batch.fields.slice(numbers[0], len(numbers)))
        found = validated["row"].to_numpy()
        owners = batch.owners[found]
        decided = []
        for owner in np.unique(owners).tolist():
            own = owners == owner
            rows = validated.filter(pa.array(own))
            rows = rows.set_column(rows.column_names.index("row"), "row", pa.array(batch.rows[found[own]]))
            valid, dead = self._explainer.split(rows, np.ones(len(rows), bool), partial(batch.raw, owner))
            decided.append((owner, Candidates(filled(rows.select(self._schema.validated_columns)), valid), dead))
        for owner, candidates, dead in decided:
            batch.candidates[owner].append(candidates)
            batch.dead[owner] += dead

    def _bury(self, batch: "_Batch", number: int, error: Exception) -> None:
        """Make a dead letter of an event that cannot be validated, unless none can.

        Raises:
            Permanent: the SQL fails without any event too.
        """
        import duckdb

        try:
            self.session.query(self._statement, "fields", batch.fields.slice(0, 0))
        except duckdb.Error as fault:
            raise Permanent(f"The SQL of the contracts fails whatever the event: {fault}. {ADVICE}") from fault
        detail = f"The SQL of the contracts fails on it: {describe(error)}. {ADVICE}"
        owner, event = batch.events[number]
        row = np.array([event.row])
        batch.dead[owner] += DeadLetters.of(row, batch.raw(owner, row), reason=UNDECODABLE, detail=detail)

    def _table(self, events: Sequence[Deferred]) -> pa.Table:
        """Their fields, each event under its number in place of its row."""
        fields = [one.fields for one in events]
        occurring = set().union(*fields)
        columns = {"row": pa.array(np.arange(len(events), dtype=np.int32))}
        for column in self._schema.fields:
            name, kind = column.name, _arrow_type(column.type)
            given = name in occurring
            columns[name] = pa.array([one.get(name) for one in fields], kind) if given else pa.nulls(len(events), kind)
        return pa.table(columns)


class _Batch:
    """Deferred events of several slices under numbers of their own, and what became of them by slice.

    Attributes:
        events: each with the place of its slice.
        fields: their fields, each under its number in place of its row.
        owners: int64, shape (events,): the place of the slice.
        rows: int32, shape (events,): the row there.
    """

    def __init__(self, events: Sequence[tuple[int, Deferred]], fields: pa.Table, slices: int) -> None:
        self.events = events
        self.fields = fields
        self.owners = np.array([owner for owner, _ in events], np.int64)
        self.rows = np.array([event.row for _, event in events], np.int32)
        self._raw: list[dict[int, bytes]] = [{} for _ in range(slices)]
        for owner, event in events:
            self._raw[owner][event.row] = event.raw
        self.candidates: list[list[Candidates]] = [[] for _ in range(slices)]
        self.dead = [DeadLetters()] * slices

    def raw(self, owner: int, rows: npt.NDArray[np.integer]) -> pa.Array:
        """The lines of rows of a slice."""
        return pa.array([self._raw[owner][row] for row in rows.tolist()], pa.binary())


def _arrow_type(logical: str) -> pa.DataType:
    if logical == "integer":
        return pa.int64()
    return {"number": pa.float64(), "boolean": pa.bool_()}.get(logical, pa.string())


T = TypeVar("T")


def bisect(items: Sequence[T], step: Callable[[Sequence[T]], None], give_up: Callable[[T, Exception], None]) -> None:
    """Do a step for all items, in pieces where it fails, and give up those that it fails on alone.

    It takes about two attempts a halving for each bad item. The step must change nothing where it fails.

    Raises:
        Exception: of the step, where it is the machine's fault.

    >>> done, bad = [], []
    >>> def step(numbers): done.extend([10 // number for number in numbers])
    >>> bisect([5, 0, 2, 1], step, lambda number, error: bad.append(number))
    >>> done, bad
    ([2, 5, 10], [0])
    """
    waiting = [items]
    while waiting:
        piece = waiting.pop()
        try:
            step(piece)
        except Exception as error:
            if not is_of_the_input(error):
                raise
            if len(piece) == 1:
                give_up(piece[0], error)
            else:
                middle = len(piece) // 2
                waiting += [piece[middle:], piece[:middle]]
