"""One day's snapshot of a dataset: read from its servers, judged, compared with the last good one, and published.

Data flow: contract's servers -> `Staged` -> comparison -> one commit that replaces the day (`NAME`, and before it
`NAME_rejected`), or held back until somebody accepts it. Until that commit the last good snapshot stays.
Run alone: `recsys-data snapshot take item_catalog`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from recsys_data.contracts.model import Contract, rejected_name
from recsys_data.days import date_of, day_number
from recsys_data.errors import Transient, UserError
from recsys_data.ingestion.batch.quarantine import Reading, discard, hold, open_held
from recsys_data.ingestion.batch.retention import check_kept
from recsys_data.ingestion.batch.staging import Staged
from recsys_data.ingestion.batch.taken import Compared, Taken, objection
from recsys_data.leases import file_lock
from recsys_data.settings import Settings
from recsys_data.sources.extract import days_available
from recsys_data.sources.source import is_live
from recsys_data.sql import open_session, quote
from recsys_data.storage.manifest_stats import days
from recsys_data.storage.partition import files_of, publish
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

Told = Callable[[str, int], None]
WAIT_SECONDS = 600


def take(
    lake: Lake, settings: Settings, name: str, day: date, accept: bool = False, told: Told = lambda what, rows: None
) -> Taken:
    """Take the snapshot of one day, in place of one that is there; with `accept` however much it changed.

    Raises:
        UserError: a source has no such day, lacks a column, or holds what the contract cannot; or the day is older than
            the contract keeps.
        Transient: a source or the lake cannot be used now; the last good snapshot stays.
    """
    contract = snapshot_contract(lake, name)
    check_kept(lake, name, day)
    begun = time.monotonic()
    with _alone(settings, name), Staged(contract, _staging(settings, name), settings.first_day) as staged:
        staged.gather(day, settings.data_dir, told, settings.landing_rest_seconds)
        told(f"judge {name}", 0)
        rejected = staged.judge()
        compared = _compare(lake, contract, staged, day)
        why = None if accept else objection(contract, compared)
        read = {one.server: one.rows for one in staged.gathered}
        taken = Taken(name, day, staged.as_of, compared, why, rejected, read, time.monotonic() - begun)
        refused = lake.contracts[rejected_name(name)]
        if why:
            hold(settings, taken, lambda: staged.rows(day), lambda: staged.rejected(refused, day))
            logger.warning("Held back.", extra=_said(taken) | {"why": taken.held})
            return taken
        told(f"write {name}", compared.rows)
        _publish(lake, taken, lambda: staged.rows(day), lambda: staged.rejected(refused, day))
        discard(settings, name, day)
        return replace(taken, seconds=time.monotonic() - begun)


def accept_held(lake: Lake, settings: Settings, name: str, day: date) -> Taken:
    """Publish a snapshot that was held back, as it was read then.

    Raises:
        UserError: none of that day is held back, or the day is older than the contract keeps.
    """
    snapshot_contract(lake, name)
    check_kept(lake, name, day)
    with _alone(settings, name):
        held = open_held(settings, name, day)
        _publish(lake, held.taken, lambda: held.read("rows"), lambda: held.read("rejected"))
        discard(settings, name, day)
    return replace(held.taken, held=None)


def _publish(lake: Lake, taken: Taken, rows: Reading, rejected: Reading) -> None:
    """Make a snapshot visible, after the rows that it refused, so that none of them is ever missing."""
    number = day_number(taken.day)
    publish(lake.table(rejected_name(taken.name)), number, rejected())
    table = lake.table(taken.name)
    publish(table, number, rows())
    logger.info("Published.", extra=_said(taken) | {"snapshots": {taken.name: table.metadata.current_snapshot_id}})


def _said(taken: Taken) -> dict[str, object]:
    refused = sum(taken.rejected.values())
    return {"dataset": taken.name, "day": str(taken.day), "rows": taken.compared.rows, "refused": refused}


def snapshot_contract(lake: Lake, name: str) -> Contract:
    """The contract of a snapshot dataset.

    Raises:
        UserError: there is none of that name.
    """
    contract = lake.contracts.get(name)
    if contract is None or not contract.is_snapshot:
        known = ", ".join(sorted(n for n, c in lake.contracts.items() if c.is_snapshot))
        raise UserError(f"{name} is no dataset that is taken as snapshots; expected one of {known}.")
    return contract


def stored_days(lake: Lake, name: str) -> list[date]:
    """The days whose snapshot is in the lake, oldest first."""
    if not lake.exists(name):
        return []
    return [date_of(number) for number in sorted(days(lake.table(name)))]


def refused_rows(lake: Lake, name: str, day: date) -> dict[str, int]:
    """How many rows of a stored day were refused, by reason, most frequent first."""
    table = lake.table(rejected_name(name))
    files = [path for path, _ in files_of(table, day_number(day))]
    with open_session() as connection:
        counted = f"SELECT reason, count(*) FROM ({relation(table, files)}) GROUP BY 1 ORDER BY 2 DESC, 1"
        return dict(connection.sql(counted).fetchall())


def takeable_days(contract: Contract, settings: Settings) -> list[date]:
    """The days whose snapshot could be taken now, oldest first."""
    if any(is_live(server) for server in contract.servers):
        return [datetime.now(UTC).date()]
    found = [set(days_available(server, settings.data_dir) or []) for server in contract.servers]
    return sorted(set.intersection(*found))


def _compare(lake: Lake, contract: Contract, staged: Staged, day: date) -> Compared:
    """Beside the newest snapshot of an earlier day; columns are compared as the history compares them."""
    rows = staged.accepted
    earlier = [one for one in stored_days(lake, contract.name) if one < day]
    if not earlier:
        return Compared(rows)
    table = lake.table(contract.name)
    before = relation(table, [path for path, _ in files_of(table, day_number(earlier[-1]))])
    keys = ", ".join(map(quote, contract.primary_key))
    first = quote(contract.primary_key[0])
    columns = [c for c in contract.columns if not c.system and not c.key]
    differ = " OR ".join(f"a.{quote(c.name)} IS DISTINCT FROM b.{quote(c.name)}" for c in columns) or "false"
    counted = staged.connection.sql(f"""
        SELECT count(b.{first}), count(*) FILTER (WHERE a.{first} IS NULL), count(*) FILTER (WHERE b.{first} IS NULL),
               count(*) FILTER (WHERE a.{first} IS NOT NULL AND b.{first} IS NOT NULL AND ({differ}))
        FROM (SELECT * FROM judged WHERE reason IS NULL) a FULL JOIN ({before}) b USING ({keys})""").fetchall()[0]
    return Compared(rows, earlier[-1], *counted)


def _staging(settings: Settings, name: str) -> Path:
    return settings.staging_dir / name


@contextmanager
def _alone(settings: Settings, name: str) -> Iterator[None]:
    """One at a time takes a dataset's snapshots on this machine."""
    path = settings.lock_path(name)
    with file_lock(path, WAIT_SECONDS) as taken:
        if not taken:
            raise Transient(f"Another process is taking a snapshot of {name}: it holds {path}. Try again later.")
        yield
