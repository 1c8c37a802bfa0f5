"""One state of one server of a snapshot dataset -> Arrow batches of the contract's types.

Data flow: server of a contract -> database (`sqlalchemy.py`, `postgresql.py`) or files (`files.py`) -> `arrow.py` ->
batches with a column `_problems`, which says of each row why it cannot be taken; the caller makes dead letters of
those. A source is read once, in one consistent read, in bounded memory; stopping early leaves nothing behind.
"""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.servers import Server
from recsys_data.errors import Permanent, RecsysDataError, UserError
from recsys_data.redaction import redacted, secrets_of
from recsys_data.sources.files.patterns import Listing
from recsys_data.sources.files.resting import REST_SECONDS, at_rest, changing
from recsys_data.sources.locations import days_of_files, files_of_day, named, no_files, resolved
from recsys_data.sources.source import ColumnRequest, Extract, is_live

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


@contextmanager
def extract(
    server: Server, wanted: Sequence[ColumnRequest], day: date, data_dir: Path, rest_seconds: float = REST_SECONDS
) -> Iterator[Extract]:
    """Open one consistent read of the state of a day (UTC); `batches` is read within the `with` block.

    A wanted column that the source lacks is left out, unless the contract names it for this server. Files that changed
    within `rest_seconds` are waited for.

    Raises (here, and while batches are read):
        UserError: there is no such day, folder, table or column, or a typed value does not fit; says what to do.
        Transient: the source cannot be reached, the read broke off, or files are still written; the state must be read
            again from the start.
    """
    today = datetime.now(UTC).date()
    if is_live(server) and day != today:
        raise UserError(
            f"{named(server)} knows only today's state ({today}, UTC), not that of {day}; "
            "day-folder files can be backfilled. Take today, or a server with {day} in its location."
        )
    with without_secrets(server, data_dir):
        if server.is_database:
            opened = _database(server, wanted, data_dir, day)
        else:
            opened = _files(server, wanted, day, data_dir, rest_seconds)
        with opened as found:
            yield found


def days_available(server: Server, data_dir: Path) -> list[date] | None:
    """The days of a day-folder source, oldest first; None for a live source.

    Raises:
        UserError: the location cannot be read.
        Transient: S3 does not answer.
    """
    if is_live(server):
        return None
    with without_secrets(server, data_dir):
        return days_of_files(server, data_dir)


@contextmanager
def without_secrets(server: Server, data_dir: Path) -> Iterator[None]:
    """Let no error out, not even one that nobody foresaw, that shows a secret of the location.

    Raises:
        Permanent: in place of an error of a library whose text holds one.
    """
    try:
        yield
    except RecsysDataError:
        raise
    except Exception as error:
        secrets = secrets_of(resolved(server, data_dir, ""))
        chain = [error, *filter(None, (error.__cause__, error.__context__))]
        if all(redacted(str(one), secrets) == str(one) for one in chain):
            raise
        found = redacted(f"{type(error).__name__}: {error}", secrets)
        raise Permanent(f"{named(server)} cannot be read: {found}. Fix its location.") from None


def fingerprint(server: Server, data_dir: Path, day: date) -> str | None:
    """Of the files of a day, with their sizes and times: it stays the same while nobody writes; None if there are none.

    Raises:
        UserError: the location cannot be read.
        Transient: S3 does not answer.
    """
    listing = files_of_day(server, data_dir, day)[1]()
    return hashlib.sha256(repr(listing.state).encode()).hexdigest()[:16] if listing.files else None


def _database(
    server: Server, wanted: Sequence[ColumnRequest], data_dir: Path, day: date
) -> AbstractContextManager[Extract]:
    from recsys_data.sources.databases.sqlalchemy import extract_database

    if not is_live(server):
        raise UserError(f"{named(server)}: a database knows no days. Take {{day}} out of its location.")
    return extract_database(server, wanted, data_dir)


@contextmanager
def _files(
    server: Server, wanted: Sequence[ColumnRequest], day: date, data_dir: Path, rest_seconds: float
) -> Iterator[Extract]:
    from recsys_data.sources.files.files import Files

    system, list_files = files_of_day(server, data_dir, day)
    listing = at_rest(list_files, rest_seconds, named(server))
    if not listing.files:
        raise no_files(server, data_dir, day, listing)
    if listing.temporary:
        names = [info.base_name for info in listing.temporary]
        logger.warning("Files with temporary names were not read.", extra={"server": server.name, "files": names})
    as_of = datetime.now(UTC) if is_live(server) else datetime.combine(day + timedelta(days=1), time(), UTC)
    files = Files(server, system, [info.path for info in listing.files])
    present = files.present(wanted)
    batches = _unchanged(files.batches(present), listing, list_files, named(server))
    try:
        yield Extract(as_of, tuple(column.name for column in present), batches)
    finally:
        batches.close()


def _unchanged(
    batches: "Iterator[pa.RecordBatch]", listing: Listing, list_files: Callable[[], Listing], where: str
) -> "Generator[pa.RecordBatch]":
    """The batches; after the last of them, nobody has written meanwhile.

    Raises:
        Transient: somebody has.
    """
    yield from batches
    after = list_files()
    if after.state != listing.state:
        raise changing(where, listing, after)
