"""What was rejected, by reason: lines of the stream (`dead_letters`) and rows of snapshots (`NAME_rejected`)."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.rules import session
from recsys_data.sql import literal
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake


@dataclass(frozen=True, slots=True)
class Rejected:
    """What was rejected for one reason.

    Attributes:
        origin: the dataset that holds the rejected lines or rows.
        dataset: the dataset whose contract they break; None where they could not be read.
        place: where an example is: `PARTITION:OFFSET` in the log, or a day.
        detail: what was found there, and what was expected; it may hold personal data.
    """

    origin: str
    reason: str
    dataset: str | None
    count: int
    first: datetime
    last: datetime
    place: str
    detail: str


@dataclass(frozen=True, slots=True)
class Example:
    """One rejected line or row, as it came; it may hold personal data."""

    place: str
    rejected_at: datetime
    reason: str
    detail: str
    raw: bytes

    @property
    def text(self) -> str:
        """The line, with escapes for bytes that are not text."""
        return self.raw.decode("utf-8", "backslashreplace")


def summary(lake: Lake, since: datetime | None = None, origins: Collection[str] | None = None) -> list[Rejected]:
    """Rejected lines and rows by dataset and reason, most frequent first.

    Args:
        lake: where it is.
        since: only what was rejected then or later.
        origins: only what these datasets hold; None: all of them.
    """
    found: list[Rejected] = []
    for name, contract in _holders(lake).items():
        if origins is not None and name not in origins:
            continue
        with session(parallel=True) as connection:
            rows = connection.execute(
                f"""SELECT reason, dataset, count(*), min(rejected_at), max(rejected_at),
                           arg_max(place, rejected_at), arg_max(detail, rejected_at)
                    FROM ({_rejected(lake, contract)}) WHERE coalesce(rejected_at >= ?, true) GROUP BY ALL""",
                [since],
            ).fetchall()
        found += [Rejected(name, *row) for row in rows]
    return sorted(found, key=lambda one: (-one.count, one.reason))


def examples(lake: Lake, reason: str, limit: int) -> list[Example]:
    """The newest lines and rows that were rejected for a reason."""
    found: list[Example] = []
    for contract in _holders(lake).values():
        with session(parallel=True) as connection:
            rows = connection.execute(
                f"""SELECT place, rejected_at, reason, detail, raw FROM ({_rejected(lake, contract)})
                    WHERE reason = ? ORDER BY rejected_at DESC, place LIMIT {int(limit)}""",
                [reason],
            ).fetchall()
        found += [Example(place, at, why, detail, _bytes(raw)) for place, at, why, detail, raw in rows]
    return sorted(found, key=lambda one: one.rejected_at, reverse=True)[:limit]


def _holders(lake: Lake) -> dict[str, Contract]:
    return {name: contract for name, contract in lake.contracts.items() if contract.holds_rejects and lake.exists(name)}


def _bytes(raw: bytes | str) -> bytes:
    return raw.encode() if isinstance(raw, str) else raw


def _rejected(lake: Lake, contract: Contract) -> str:
    """SQL of the rejected lines or rows of a dataset, with the same columns for both."""
    table = lake.table(contract.name)
    rows = relation(table, data_files(table))
    if contract.kind is Kind.DEAD_LETTERS:
        return (
            "SELECT reason, dataset, rejected_at, log_partition || ':' || log_offset AS place, "
            f"coalesce(detail, '') AS detail, raw FROM ({rows})"
        )
    return (
        f"SELECT reason, {literal(contract.base or '')} AS dataset, as_of AS rejected_at, "
        f"snapshot_date::VARCHAR AS place, coalesce(detail, '') AS detail, coalesce(\"row\", '') AS raw FROM ({rows})"
    )
