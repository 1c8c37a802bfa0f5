"""What was refused, by reason: lines of the stream (`dead_letters`) and rows of snapshots (`NAME_rejected`)."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.rules import session
from recsys_data.sql import literal
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake


@dataclass(frozen=True, slots=True)
class Refused:
    """All that was refused for one reason.

    Attributes:
        origin: the dataset that holds the refused lines or rows.
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
    """One refused line or row, as it came; it may hold personal data."""

    place: str
    refused_at: datetime
    reason: str
    detail: str
    raw: bytes

    @property
    def text(self) -> str:
        """What came, with escapes for what is no text."""
        return self.raw.decode("utf-8", "backslashreplace")


def summary(lake: Lake, since: datetime | None = None, origins: Collection[str] | None = None) -> list[Refused]:
    """What was refused, by dataset and reason, most frequent first.

    Args:
        lake: where it is.
        since: only what was refused then or later.
        origins: only what these datasets hold; None: all that hold what was refused.
    """
    found: list[Refused] = []
    for name, contract in _holders(lake).items():
        if origins is not None and name not in origins:
            continue
        with session(parallel=True) as connection:
            rows = connection.execute(
                f"""SELECT reason, dataset, count(*), min(refused_at), max(refused_at),
                           arg_max(place, refused_at), arg_max(detail, refused_at)
                    FROM ({_refused(lake, contract)}) WHERE coalesce(refused_at >= ?, true) GROUP BY ALL""",
                [since],
            ).fetchall()
        found += [Refused(name, *row) for row in rows]
    return sorted(found, key=lambda one: (-one.count, one.reason))


def examples(lake: Lake, reason: str, limit: int) -> list[Example]:
    """The newest lines and rows that were refused for a reason."""
    found: list[Example] = []
    for contract in _holders(lake).values():
        with session(parallel=True) as connection:
            rows = connection.execute(
                f"""SELECT place, refused_at, reason, detail, raw FROM ({_refused(lake, contract)})
                    WHERE reason = ? ORDER BY refused_at DESC, place LIMIT {int(limit)}""",
                [reason],
            ).fetchall()
        found += [Example(place, at, why, detail, _bytes(raw)) for place, at, why, detail, raw in rows]
    return sorted(found, key=lambda one: one.refused_at, reverse=True)[:limit]


def _holders(lake: Lake) -> dict[str, Contract]:
    return {name: contract for name, contract in lake.contracts.items() if contract.holds_rejects and lake.exists(name)}


def _bytes(raw: bytes | str) -> bytes:
    return raw.encode() if isinstance(raw, str) else raw


def _refused(lake: Lake, contract: Contract) -> str:
    """SQL of what a dataset holds, in the same words whether it came by the stream or by a snapshot."""
    table = lake.table(contract.name)
    rows = relation(table, data_files(table))
    if contract.kind is Kind.DEAD_LETTERS:
        return (
            "SELECT reason, dataset, rejected_at AS refused_at, log_partition || ':' || log_offset AS place, "
            f"coalesce(detail, '') AS detail, raw FROM ({rows})"
        )
    return (
        f"SELECT reason, {literal(contract.base or '')} AS dataset, as_of AS refused_at, "
        f"snapshot_date::VARCHAR AS place, coalesce(detail, '') AS detail, coalesce(\"row\", '') AS raw FROM ({rows})"
    )
