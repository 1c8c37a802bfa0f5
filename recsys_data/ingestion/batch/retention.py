"""Days that are older than their contract keeps them leave the lake: whole files, in one commit a dataset.

Data flow: `retention` of the contract -> the days before it -> out of the table, counted as expired. Readers that began
before go on reading; the files themselves are removed by upkeep, once no snapshot of the table refers to them.
A history outlives the snapshots that it was made of: it continues as if they were still there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

import msgspec

from recsys_data.contracts.model import history_name
from recsys_data.errors import UserError
from recsys_data.ingestion.batch.history.state import day_of, fingerprint, read_state
from recsys_data.storage.commit import delete_files
from recsys_data.storage.ledger import Deletions, read_deletions
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table


@dataclass(frozen=True, slots=True)
class Expired:
    """What expiring old days of a dataset did.

    Attributes:
        kept_since: the first day that the contract keeps; None if it keeps all.
        days: how many days had rows that expired.
    """

    kept_since: date | None
    days: int = 0
    rows: int = 0


def expire(lake: Lake, name: str, now: datetime) -> Expired:
    """Remove the days of a dataset that its contract no longer keeps at `now`.

    Of snapshots, the newest stays however old it is, and none goes before it was applied to the history.

    Raises:
        Transient: the catalog cannot be written now; nothing was changed.
    """
    contract = lake.contracts[name]
    if contract.retention is None or not lake.exists(name):
        return Expired(None)
    since = (now.astimezone(UTC) - contract.retention).date()
    table = lake.table(name)
    by_day = _by_day(table)
    old = [day for day in sorted(by_day) if day < since]
    if contract.is_snapshot:
        old = _in_history(lake, name, by_day, old)
    if not old:
        return Expired(since)
    files = [file for day in old for file in by_day[day]]
    rows = sum(file.record_count for file in files)
    before = old[-1] + timedelta(days=1)
    if not delete_files(table, files, [], lambda stored: _with_expired(stored, rows, before)):
        # Somebody has just rewritten one of them; the next run is early enough.
        return Expired(since)
    return Expired(since, len(old), rows)


def kept_since(lake: Lake, name: str, now: datetime) -> date:
    """The first day that may be stored: neither older than the contract keeps, nor among those that expired."""
    retention = lake.contracts[name].retention
    kept = date.min if retention is None else (now.astimezone(UTC) - retention).date()
    retired = read_deletions(lake.table(name)).expired_before if lake.exists(name) else None
    return max(kept, retired or date.min)


def check_kept(lake: Lake, name: str, day: date) -> None:
    """Refuse a day that would expire at once, or that can no longer be applied to the history.

    Raises:
        UserError: it is too old.
    """
    since = kept_since(lake, name, datetime.now(UTC))
    if day < since:
        raise UserError(
            f"{day} is older than {name} is kept: since {since}. Choose a later day, or raise `retention` in "
            f"{lake.contracts[name].path}, which brings back nothing that has expired."
        )


def _by_day(table: "Table") -> "dict[date, list[DataFile]]":
    files = sorted((task.file for task in table.scan().plan_files()), key=day_of)
    return {day: list(of_day) for day, of_day in groupby(files, key=day_of)}


def _in_history(lake: Lake, name: str, by_day: "dict[date, list[DataFile]]", old: Sequence[date]) -> list[date]:
    """The first of these days, as far as they are applied to the history as they are."""
    history = history_name(name)
    if not lake.exists(history):
        return []
    applied = {one.day: one.files for one in read_state(lake.table(history)).days}
    newest = max(by_day)
    return list(takewhile(lambda day: day < newest and applied.get(day) == fingerprint(by_day[day]), old))


def _with_expired(stored: Deletions, rows: int, before: date) -> Deletions:
    return msgspec.structs.replace(
        stored,
        expired=stored.expired + rows,
        expired_before=max(before, stored.expired_before or date.min),
    )
