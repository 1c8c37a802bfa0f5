"""One snapshot run: a day's state, read from its servers, validated, compared with the last good one, and published.

Data flow: contract's servers -> `Staged` -> comparison -> one commit that replaces the day (`NAME`, and before it
`NAME_rejected`), or quarantine until somebody accepts it. Until that commit the last good snapshot stays.
Run alone: `recsys-data snapshot take item_catalog`.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date

from msgspec.structs import replace

from recsys_data.contracts.model import Contract, rejected_name
from recsys_data.days import day_number
from recsys_data.errors import UserError
from recsys_data.ingestion.batch.partitions import stored_days
from recsys_data.ingestion.batch.quarantine import (
    Compared,
    OpenReader,
    SnapshotResult,
    discard,
    open_quarantined,
    quarantine,
    violated_limit,
)
from recsys_data.ingestion.batch.retention import check_kept
from recsys_data.ingestion.batch.staging import Staged
from recsys_data.leases import exclusive_lease
from recsys_data.settings import Settings
from recsys_data.sql import open_session, quote
from recsys_data.storage.partition import files_of, publish
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

# What is done now, and how many rows that is.
Progress = Callable[[str, int], None]
WAIT_SECONDS = 600


def take_snapshot(
    lake: Lake,
    settings: Settings,
    name: str,
    day: date,
    accept: bool = False,
    on_progress: Progress = lambda what, rows: None,
) -> SnapshotResult:
    """Read and publish the snapshot of one day, in place of a stored one; with `accept` whatever limit it violates.

    Raises:
        UserError: a source has no such day, lacks a column, or holds what the contract cannot; or the day is older than
            the contract keeps.
        Transient: a source or the lake cannot be used now; the last good snapshot stays.
    """
    contract = snapshot_contract(lake, name)
    check_kept(lake, name, day)
    begun = time.monotonic()
    staging = settings.staging_dir / name
    with _alone(settings, name), Staged(contract, staging, settings.first_day) as staged:
        staged.gather(day, settings.data_dir, on_progress, settings.landing_rest_seconds)
        on_progress(f"validate {name}", 0)
        rejected = staged.validate()
        compared = _compare(lake, contract, staged, day)
        violation = None if accept else violated_limit(contract, compared)
        read = {one.server: one.rows for one in staged.gathered}
        result = SnapshotResult(name, day, staged.as_of, compared, violation, rejected, read, time.monotonic() - begun)
        readers = (lambda: staged.rows(day), lambda: staged.rejected(lake.contracts[rejected_name(name)], day))
        if violation:
            quarantine(settings, result, *readers)
            logger.warning("On hold.", extra=_facts(result) | {"why": violation})
            return result
        on_progress(f"write {name}", compared.rows)
        _publish(lake, result, *readers)
        discard(settings, name, day)
        return replace(result, seconds=time.monotonic() - begun)


def accept_snapshot(lake: Lake, settings: Settings, name: str, day: date) -> SnapshotResult:
    """Publish a snapshot that is on hold, as it was read then.

    Raises:
        UserError: none of that day is on hold, or the day is older than the contract keeps.
    """
    snapshot_contract(lake, name)
    check_kept(lake, name, day)
    with _alone(settings, name):
        held = open_quarantined(settings, name, day)
        _publish(lake, held.result, lambda: held.read("rows"), lambda: held.read("rejected"))
        discard(settings, name, day)
    return replace(held.result, violation=None)


def _publish(lake: Lake, result: SnapshotResult, rows: OpenReader, rejected: OpenReader) -> None:
    """Make a snapshot visible, after its rejected rows, so that none of them is ever missing."""
    number = day_number(result.day)
    publish(lake.table(rejected_name(result.name)), number, rejected())
    table = lake.table(result.name)
    publish(table, number, rows())
    snapshots = {result.name: table.metadata.current_snapshot_id}
    logger.info("Published.", extra=_facts(result) | {"snapshots": snapshots})


def _facts(result: SnapshotResult) -> dict[str, object]:
    refused = sum(result.rejected.values())
    return {"dataset": result.name, "day": str(result.day), "rows": result.compared.rows, "refused": refused}


def snapshot_contract(lake: Lake, name: str) -> Contract:
    """The contract of a snapshot dataset.

    Raises:
        UserError: there is none of that name.
    """
    contract = lake.contracts.get(name)
    if contract is None or not contract.is_snapshot:
        known = ", ".join(sorted(n for n, c in lake.contracts.items() if c.is_snapshot))
        raise UserError(f"Unknown snapshot dataset {name!r}. Choose one of {known}.")
    return contract


def rejected_rows(lake: Lake, name: str, day: date) -> dict[str, int]:
    """How many rows of a stored day were rejected, by reason, most frequent first."""
    with open_session() as connection:
        counted = (
            f"SELECT reason, count(*) FROM ({_rows_of(lake, rejected_name(name), day)}) GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return dict(connection.sql(counted).fetchall())


def _rows_of(lake: Lake, name: str, day: date) -> str:
    """SQL of the stored rows of a day."""
    table = lake.table(name)
    return relation(table, [path for path, _ in files_of(table, day_number(day))])


def _compare(lake: Lake, contract: Contract, staged: Staged, day: date) -> Compared:
    """Beside the newest snapshot of an earlier day; columns are compared as the history compares them."""
    rows = staged.accepted
    earlier = [one for one in stored_days(lake, contract.name) if one < day]
    if not earlier:
        return Compared(rows)
    before = _rows_of(lake, contract.name, earlier[-1])
    keys = ", ".join(map(quote, contract.primary_key))
    first = quote(contract.primary_key[0])
    columns = [c for c in contract.columns if not c.system and not c.key]
    differ = " OR ".join(f"a.{quote(c.name)} IS DISTINCT FROM b.{quote(c.name)}" for c in columns) or "false"
    counted = staged.connection.sql(f"""
        SELECT count(b.{first}), count(*) FILTER (WHERE a.{first} IS NULL), count(*) FILTER (WHERE b.{first} IS NULL),
               count(*) FILTER (WHERE a.{first} IS NOT NULL AND b.{first} IS NOT NULL AND ({differ}))
        FROM (SELECT * FROM validated WHERE reason IS NULL) a FULL JOIN ({before}) b USING ({keys})""").fetchall()[0]
    return Compared(rows, earlier[-1], *counted)


def _alone(settings: Settings, name: str) -> AbstractContextManager[None]:
    """Let one process at a time read snapshots of a dataset."""
    busy = f"Another process is taking a snapshot of {name}. Try again later."
    return exclusive_lease(settings, name, busy, WAIT_SECONDS)
