"""Rejected rows -> dead letters that say which rule each breaks, and by which values.

Rows of one reason are explained together, and only the columns that it speaks of become Python values: a broken
client may send nothing but such rows.
"""

import re
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.model import Contract
from recsys_data.contracts.rules import columns_of, reasons
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.decoding.decoded import DeadLetters
from recsys_data.ingestion.streaming.decoding.event_sql import IN, PATTERNS, EventSchema

EXPECTED = {
    "timestamp": "RFC 3339 with an offset, e.g. 2026-01-02T03:04:05.678Z",
    "date": "a date, e.g. 2026-01-02",
}
HOMELESS = "no dataset of the event stream takes it whole (rowWhen)"
Mask = npt.NDArray[np.bool_]
Raw = Callable[[npt.NDArray[np.int32]], pa.Array]


class Explainer:
    """Explains rows of the validating statement by the contracts of an event schema."""

    def __init__(self, schema: EventSchema) -> None:
        self.schema = schema
        self._contracts = [(contract, dict(reasons(contract))) for contract in schema.contracts]
        self._always = ["row", "event_id", "received_at", "bad_time"]
        self._always += ["raw_" + column.name for column in schema.fields if column.type in PATTERNS]

    def split(self, validated: pa.Table, proven: Mask, raw: Raw) -> tuple[Mask, DeadLetters]:
        """Which proven rows break no contract, and the dead letters of the others.

        Args:
            validated: rows of the validating statement.
            proven: which of them hold all that their lines do, bool, shape (rows,).
            raw: gives the lines of rows of the slice.
        """
        broken = proven & pc.is_valid(validated["reason"]).to_numpy()
        return proven & ~broken, self._explain(validated, broken, raw) if broken.any() else DeadLetters()

    def _explain(self, validated: pa.Table, broken: Mask, raw: Raw) -> DeadLetters:
        letters = DeadLetters()
        found = validated["reason"].combine_chunks().dictionary_encode()
        codes = found.indices.fill_null(-1).to_numpy()
        for code, reason in enumerate(found.dictionary.to_pylist()):
            left = broken & (codes == code)
            for contract, known in self._contracts:
                if reason in known:
                    member = left & pc.fill_null(validated[IN + contract.name], False).to_numpy()
                    letters += self._letters(validated, member, raw, reason, (contract, known[reason]))
                    left &= ~member
            letters += self._letters(validated, left, raw, reason, None)
        return letters

    def _letters(
        self, validated: pa.Table, mask: Mask, raw: Raw, reason: str, broken: tuple[Contract, str] | None
    ) -> DeadLetters:
        """The dead letters of rows of one reason; `broken` is the contract that gives it, and its SQL."""
        if not mask.any():
            return DeadLetters()
        names = columns_of(broken[1], broken[0]) if broken else []
        rows = validated.select(list(dict.fromkeys([*self._always, *names]))).filter(pa.array(mask))
        at = rows["row"].to_numpy()
        return DeadLetters.of(
            at,
            raw(at),
            reason=reason,
            detail=self._unparseable(rows) or (_details(rows, reason, *broken, names) if broken else HOMELESS),
            dataset=broken[0].name if broken else None,
            event_id=rows["event_id"],
            received_at=rows["received_at"],
        )

    def _unparseable(self, rows: pa.Table) -> list[str] | None:
        """What is wrong with times that are none; all rows have the same bad one, or none."""
        name = rows["bad_time"][0].as_py()
        if name is None:
            return None
        expected = EXPECTED[self.schema.columns[name].type]
        return [f"{name} is {value!r}; expected {expected}" for value in rows["raw_" + name].to_pylist()]


def _details(rows: pa.Table, reason: str, contract: Contract, broken: str, names: list[str]) -> list[str] | str:
    """What is wrong with rows that break one rule, with the values that it speaks of."""
    rule = next((rule for rule in contract.rules if rule.name == reason), None)
    says = f"{rule.description} " if rule else ""
    if not names:
        return f"{says}Found nothing."
    form = ", ".join(f"{name} = {{!r}}" for name in names)
    records = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return [f"{says}Found {form.format(*record)}." for record in records]


UNDECODABLE = "undecodable"

SHOWN = 200

# What an error quotes of its input may be personal.
QUOTED = re.compile(r"'(?:[^'\n]|'')*'|\"[^\"\n]*\"|`[^`\n]*`|\d+")

INPUT_BEGINS = re.compile(r"\s*Input:.*", re.DOTALL)


def is_of_the_input(error: Exception) -> bool:
    """Whether a step that failed so fails because of its lines, hence again."""
    import duckdb

    machine = (duckdb.OperationalError, duckdb.InterruptException)
    return not isinstance(error, (MemoryError, OSError, Transient, Permanent, *machine))


def describe(error: Exception) -> str:
    r"""What failed, and where, without a word of the line.

    >>> describe(ValueError("Could not convert string 'Ada' to INT32\n\nLINE 1: ..."))
    'ValueError: Could not convert string … to INT…'
    """
    message = str(error).encode("utf-8", "replace").decode()
    first = next(iter(INPUT_BEGINS.sub("", message).strip().splitlines()), "")
    text = f"{type(error).__name__}: {QUOTED.sub('…', first)[:SHOWN]}".rstrip(": ")
    frames = extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text
