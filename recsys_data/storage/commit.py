"""Compare-and-set commits: new rows and the new position become visible together, or not at all."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from recsys_data.errors import PositionMoved, Transient
from recsys_data.leases import file_lock, lease_key
from recsys_data.storage.iceberg.catalog import LOCKS, commit_failures, postgresql_of
from recsys_data.storage.integrity import names_corrupt_file
from recsys_data.storage.ledger import (
    ACCEPTED_LOSSES,
    DELETIONS,
    LEDGER,
    Deletions,
    Ledger,
    accepted_losses,
    follows,
    is_made,
    read_deletions,
    read_ledger,
    rebased,
)

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.table.update.schema import UpdateSchema
    from sqlalchemy import Engine

ATTEMPTS = 20
PAUSE_SECONDS = 0.05
# A swap of very many files is prepared in less; a process that is stopped within one holds up others no longer.
LOCK_SECONDS = 20.0
# Snapshots cost time in every later commit; these bounds keep commits flat. See docs/decisions/0002.
EXPIRE_EVERY = 50
SNAPSHOT_AGE = timedelta(minutes=2)


class Change(NamedTuple):
    """One commit: files that leave a table, files that join it, and properties that are set.

    Attributes:
        schema: changes the columns.
        compared: whether the catalog refuses it if another commit moved the table on since it was loaded. It then makes
            a snapshot, even without files, because that is what the catalog compares.
    """

    removed: "Sequence[DataFile]" = ()
    added: "Sequence[DataFile]" = ()
    properties: Mapping[str, str] = {}
    schema: "Callable[[UpdateSchema], None] | None" = None
    compared: bool = True


def compare_and_set(table: "Table", prepare: "Callable[[Table], Change | bool]", exclusive: bool = False) -> bool:
    """Make one commit on top of the table's newest state, once, whatever the catalog reports and others commit.

    Args:
        table: as loaded for the first attempt, unless `exclusive`; refreshed before every other.
        prepare: what to commit, given the refreshed table; True if the table has it already, because the catalog took a
            commit that it reported as failed or another process made the same; False if it does not apply any more.
        exclusive: whether other commits wait, because to prepare this one takes long, or others come all the time.

    Returns:
        Whether the table has the change.

    Raises:
        Transient: the catalog cannot be written now.
    """
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        with table_lock(table, exclusive):
            try:
                if attempt or exclusive:
                    table.refresh()
                change = prepare(table)
                if isinstance(change, bool):
                    return change
                swap(table, change)
            except commit_failures() as error:
                failure = error
            else:
                return True
    raise Transient(f"{'.'.join(table.name())} could not be committed in {ATTEMPTS} attempts: {failure}. Try again.")


@names_corrupt_file
def swap(table: "Table", change: Change) -> None:
    """Make a change on top of the loaded state of the table, in one commit.

    Raises:
        CommitFailedException: the table has moved on since it was loaded; nothing is visible.
    """
    transaction = table.transaction()
    if change.properties:
        transaction.set_properties(dict(change.properties))
    if change.schema:
        with transaction.update_schema() as columns:
            change.schema(columns)
    if change.compared:
        update = transaction.update_snapshot()
        # A fast append would leave a manifest a commit, and every scan or replacement of files reads all of them.
        with update.overwrite() if change.removed else update.merge_append() as producer:
            for file in change.removed:
                producer.delete_data_file(file)
            for file in change.added:
                producer.append_data_file(file)
    transaction.commit_transaction()


def commit(table: "Table", base: Ledger, ledger: Ledger, files: "Sequence[DataFile]", shared: bool = False) -> Ledger:
    """Append `files` and replace the ledger `base` by `ledger`, if nobody else replaced it meanwhile.

    Maintenance may commit to the table in between; then the commit is made again on top of it. A ledger with a token of
    its own can be committed by several processes: the first one commits it, the others find it there.

    Args:
        table: of a stream.
        base: its ledger as the writer knows it.
        ledger: what it is to be.
        files: the new rows.
        shared: whether consumers of other log partitions may commit in between, too.

    Returns:
        The table's ledger with this commit.

    Raises:
        PositionMoved: another writer has moved the position; nothing of this commit is visible.
        Transient: the catalog cannot be written now, or its answers were lost; the ledger shows which, once it is read.
    """
    if ledger.token in ("", base.token):
        ledger = msgspec.structs.replace(ledger, token=uuid.uuid4().hex)
    made = ledger

    def append(table: "Table") -> Change | bool:
        nonlocal made
        stored = read_ledger(table)
        if stored.token == ledger.token or (shared and is_made(stored, base, ledger)):
            made = stored
            return True
        if stored.token != base.token and not (shared and follows(stored, base, ledger)):
            raise PositionMoved(
                f"Another process has moved {'.'.join(table.name())} from {base.positions} to {stored.positions}. "
                "What was read here is read again from there."
            )
        made = ledger if stored.token == base.token else rebased(stored, base, ledger)
        return Change(added=files, properties={LEDGER: msgspec.json.encode(made).decode()})

    # Of many consumers that prepare commits at once, all but one would prepare theirs again and again.
    compare_and_set(table, append, exclusive=shared)
    return made


def delete_files(
    table: "Table",
    gone: Iterable["DataFile"],
    left: Sequence["DataFile"],
    count: Callable[[Deletions], Deletions],
) -> bool:
    """Put the files `left` in the place of those `gone`, and count what was removed, in one commit.

    Returns:
        False if one of the files is no longer part of the table, because another process has rewritten it.

    Raises:
        Transient: the catalog cannot be written now; nothing changed.
    """
    token = uuid.uuid4().hex
    old = {file.file_path: file for file in gone}

    def delete(table: "Table") -> Change | bool:
        stored = read_deletions(table)
        if stored.token == token:
            return True
        if old and not live_files(table).issuperset(old):
            return False
        removed = msgspec.structs.replace(count(stored), token=token)
        return Change(list(old.values()), left, {DELETIONS: msgspec.json.encode(removed).decode()})

    if not compare_and_set(table, delete, exclusive=True):
        return False
    expire_old_snapshots(table)
    return True


def accept_losses(table: "Table") -> int:
    """Accept all lost ranges that the main table's ledger lists now; returns how many were new.

    Raises:
        Transient: others kept committing to the table.
    """
    known, lost = accepted_losses(table.refresh()), len(read_ledger(table).lost)

    def accept(table: "Table") -> Change | bool:
        return accepted_losses(table) >= lost or Change(properties={ACCEPTED_LOSSES: str(lost)}, compared=False)

    compare_and_set(table, accept)
    return lost - known


def live_files(table: "Table") -> set[str]:
    """Locations of the data files of the table's loaded snapshot."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return {entry.data_file.file_path for one in manifests for entry in one.fetch_manifest_entry(table.io)}


@contextlib.contextmanager
def table_lock(table: "Table", exclusive: bool) -> Iterator[None]:
    """Keep commits (shared) and a swap of files (exclusive) from overtaking each other.

    To prepare a swap takes seconds, and it would begin anew with every commit of a consumer. The lock only saves work:
    what keeps a table right is the catalog. After `LOCK_SECONDS` the work goes on without it.
    """
    name = ".".join(table.name())
    if engine := postgresql_of(table.catalog):
        with _advisory_lock(engine, lease_key(f"table {name}"), shared=not exclusive):
            yield
        return
    folder = table.catalog.properties.get(LOCKS)
    path = Path(folder, *table.name()).with_suffix(".lock") if folder else None
    with file_lock(path, LOCK_SECONDS, shared=not exclusive) if path else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _advisory_lock(engine: "Engine", key: int, shared: bool) -> Iterator[None]:
    """A lock in the database of the catalog, for a transaction that does nothing else."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    take = text(f"SELECT pg_try_advisory_xact_lock{'_shared' if shared else ''}(:key)")
    deadline = time.monotonic() + LOCK_SECONDS
    held = contextlib.ExitStack()
    try:
        # Without it the work goes on; whether the database answers, the commit will show.
        with contextlib.suppress(DBAPIError):
            connection = held.enter_context(engine.connect())
            while not connection.execute(take, {"key": key}).scalar() and time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
        yield
    finally:
        with contextlib.suppress(DBAPIError):
            held.close()


def expire_old_snapshots(table: "Table", enough: int | None = None, age: timedelta | None = None) -> int:
    """Expire snapshots older than `age`, except the current one, once there are `enough` of them; returns how many.

    By default `SNAPSHOT_AGE` and `EXPIRE_EVERY`, as suits a table that takes a commit a second. Their files stay:
    readers go on reading them, and `orphans.py` removes them a day later.
    """
    enough = EXPIRE_EVERY if enough is None else enough
    if len(table.metadata.snapshots) < enough:
        return 0
    before = datetime.now(UTC) - (SNAPSHOT_AGE if age is None else age)
    kept = {ref.snapshot_id for ref in table.metadata.refs.values()}
    mature = [s.snapshot_id for s in table.metadata.snapshots if s.timestamp_ms < before.timestamp() * 1000]
    old = sum(snapshot not in kept for snapshot in mature)
    if old < enough:
        return 0
    try:
        table.maintenance.expire_snapshots().older_than(before).commit()
    # The next commit here tries again.
    except commit_failures():
        return 0
    except ValueError as error:
        # Maintenance and a writer may expire the same ones at once.
        if "does not exist" not in str(error):
            raise
        return 0
    return old
