"""Compare-and-set commits: new rows and the new position become visible together, or not at all."""

import contextlib
import fcntl
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recsys_data.durable import local_path
from recsys_data.errors import PositionMoved, Transient
from recsys_data.storage.integrity import naming_damage
from recsys_data.storage.ledger import PROPERTY, Ledger, read_ledger

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

ATTEMPTS = 20
PAUSE_SECONDS = 0.05
# A swap of very many files is prepared in less; whoever stops within one holds up others no longer than this.
TURN_SECONDS = 20.0
TURN_POLL_SECONDS = 0.01
# Snapshots cost time in every later commit; these bounds keep commits flat. See docs/decisions/0002.
EXPIRE_EVERY = 50
SNAPSHOT_AGE = timedelta(minutes=2)


def commit(table: "Table", base: Ledger, ledger: Ledger, files: Sequence["DataFile"]) -> None:
    """Append `files` and replace the ledger `base` by `ledger`, if nobody else replaced it meanwhile.

    Maintenance may commit to the table in between; then the commit is made again on top of it. A ledger with a token of
    its own can be committed by several processes: the first one commits it, the others find it there.

    Raises:
        PositionMoved: another writer has moved the position; nothing of this commit is visible.
        Transient: the catalog cannot be written now; nothing of this commit is visible.
    """
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import OperationalError

    if ledger.token in ("", base.token):
        ledger = msgspec.structs.replace(ledger, token=uuid.uuid4().hex)
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
            table.refresh()
        stored = read_ledger(table)
        if stored.token == ledger.token:
            # Another process has completed the same intent, or the catalog took a commit that it reported as failed.
            return
        if stored.token != base.token:
            raise PositionMoved(
                f"Another process has moved {'.'.join(table.name())} from {base.positions} to {stored.positions}. "
                "What was read here is read again from there."
            )
        try:
            with turn(table, fcntl.LOCK_SH):
                _append(table, ledger, files)
        except (CommitFailedException, OperationalError) as error:
            failure = error
        else:
            return
    raise Transient(f"{'.'.join(table.name())} could not be committed in {ATTEMPTS} attempts: {failure}.")


@naming_damage
def _append(table: "Table", ledger: Ledger, files: Sequence["DataFile"]) -> None:
    swap(table, [], files, {PROPERTY: msgspec.json.encode(ledger).decode()})


def swap(
    table: "Table", gone: Sequence["DataFile"], added: Sequence["DataFile"], properties: Mapping[str, str]
) -> None:
    """Take files out of the table, add others, and set properties, in one commit on top of the loaded state.

    Raises:
        CommitFailedException: the table has moved on since it was loaded; nothing is visible.
        ValidationException: the table does not hold one of the files that are to go; nothing is visible.
    """
    transaction = table.transaction()
    if properties:
        transaction.set_properties(dict(properties))
    update = transaction.update_snapshot()
    # A snapshot even without files: the catalog compares snapshots, so that of two writers one fails. A fast append
    # would leave a manifest a commit, and whoever plans a scan or replaces files reads every one of them.
    with update.overwrite() if gone else update.merge_append() as producer:
        for file in gone:
            producer.delete_data_file(file)
        for file in added:
            producer.append_data_file(file)
    transaction.commit_transaction()


@contextlib.contextmanager
def turn(table: "Table", kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Keep commits (`fcntl.LOCK_SH`) and a swap of files (`LOCK_EX`) from overtaking each other on this machine.

    To prepare a swap takes seconds, and it would begin anew with every commit of a drain. Only work is saved: what
    keeps a table right is the catalog. Who has waited for `TURN_SECONDS` goes on.
    """
    folder = local_path(table.location())
    if folder is None:
        yield
        return
    deadline = time.monotonic() + TURN_SECONDS
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("a+b") as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(TURN_POLL_SECONDS)
            else:
                break
        yield


def expire_old_snapshots(table: "Table", enough: int | None = None, age: timedelta | None = None) -> int:
    """Forget snapshots older than `age`, except the current one, once `enough` have gathered; returns how many.

    By default `SNAPSHOT_AGE` and `EXPIRE_EVERY`, as suits a table that takes a commit a second. Their files stay:
    whoever reads them goes on reading, and `orphans.py` removes them a day later.
    """
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import OperationalError

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
    # Whoever commits at the same moment is not kept from it; the next commit here tries again.
    except (CommitFailedException, OperationalError):
        return 0
    except ValueError as error:
        # Upkeep and a writer may forget the same ones at once.
        if "does not exist" not in str(error):
            raise
        return 0
    return old
