"""Corruption within files (flipped bits, zeros after a power failure): found, and reported with the file's name.

Pages of data files carry a CRC-32. Queries do not check it (DuckDB cannot), so that a flipped bit may pass
for a value there; `recsys-data doctor` does, and so does whatever writes rows anew: a corrupt file is never copied.
Iceberg's own files have no checksums. Most corruption makes them unreadable, and PyIceberg's errors do not say which.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, RecsysDataError
from recsys_data.storage.availability import unavailable
from recsys_data.storage.iceberg.catalog import commit_failures, metadata_location
from recsys_data.storage.iceberg.pyiceberg_patches import file_io_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

P = ParamSpec("P")
R = TypeVar("R")
RESTORE = "Restore the lake folder from a backup."
CHECK_ROWS = 50_000
# Dead letters may be of any length.
BATCH_BYTES = 64 * 1024 * 1024


def checked_batches(table: "Table", location: str, rows: int) -> "Iterator[pa.RecordBatch]":
    """The rows of a data file, at most `rows`, and about `BATCH_BYTES`, at a time.

    Raises:
        Permanent: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with (
            table.io.new_input(location).open() as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as parquet,
        ):
            sizes = [parquet.metadata.row_group(n).total_byte_size for n in range(parquet.num_row_groups)]
            fitting = BATCH_BYTES * parquet.metadata.num_rows // max(1, sum(sizes))
            yield from parquet.iter_batches(max(1, min(rows, fitting)))
    except (OSError, ValueError, pa.ArrowException) as error:
        # Errors of the operating system have a number, and are not corruption.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if away := unavailable(error):
            raise away from error
        raise damaged(location, error) from error


def damaged(location: str, error: Exception) -> Permanent:
    """The error that reports a corrupt file."""
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return Permanent(f"{local_path(location) or location} is damaged: {reason or type(error).__name__}. {RESTORE}")


def corrupt_files(table: "Table", seconds: float) -> tuple[int, list[str]]:
    """Read data files of the table for about `seconds`, the newest first: how many, and what is wrong with them."""
    until = time.monotonic() + seconds
    files = [task.file for task in table.scan().plan_files()]
    faults = []
    read = 0
    for file in sorted(files, key=lambda one: one.partition[0], reverse=True):
        if time.monotonic() > until:
            break
        try:
            for _ in checked_batches(table, file.file_path, CHECK_ROWS):
                if time.monotonic() > until:
                    return read, faults
            read += 1
        except Permanent as error:
            faults.append(str(error).removesuffix(f". {RESTORE}"))
    return read, faults


def corrupt_data(table: "Table", files: Sequence[str], error: Exception) -> Exception:
    """What to say where reading data files failed with `error`: which is damaged, or the error itself."""
    for location in files:
        try:
            for _ in checked_batches(table, location, CHECK_ROWS):
                pass
        except Permanent as found:
            return found
        except FileNotFoundError:
            path, listed = local_path(location) or location, manifest_of(table, location)
            listing = f"; {listed} lists it, or is damaged" if listed else ""
            return Permanent(f"{path} is not there{listing}. {RESTORE}")
    return error


def names_corrupt_file(work: "Callable[Concatenate[Table, P], R]") -> "Callable[Concatenate[Table, P], R]":
    """Let what fails because a file of the table's metadata is damaged say which one, as Permanent."""

    @functools.wraps(work)
    def named(table: "Table", *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(table, *args, **kwargs)
        except (RecsysDataError, *commit_failures()):
            raise
        except Exception as error:
            if away := unavailable(error):
                raise away from error
            location = _damaged_manifest(table)
            if location is None:
                raise
            raise damaged(location, error) from error

    return named


def _damaged_manifest(table: "Table") -> str | None:
    """The first manifest list or manifest, newest first, that cannot be read."""
    for snapshot in reversed(table.metadata.snapshots):
        location = snapshot.manifest_list
        try:
            for manifest in snapshot.manifests(table.io):
                location = manifest.manifest_path
                manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        except Exception:
            return location
    return None


def manifest_of(table: "Table", location: str) -> str | None:
    """The manifest that lists a data file: where that was never there, it is the manifest that is damaged."""
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        paths = (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
        if any(location in (path, str(local_path(path))) for path in paths):
            return str(local_path(manifest.manifest_path) or manifest.manifest_path)
    return None


def corrupt_metadata(catalog: "Catalog", name: tuple[str, str], error: Exception) -> Permanent | None:
    """What to say of a table whose metadata file cannot be read; None if that is not why it could not be loaded."""
    from pyiceberg.serializers import FromInputFile

    try:
        location = metadata_location(catalog, name)
    # A catalog that gives the place of the metadata only together with what is in it.
    except Exception:
        return None
    if location is None:
        return None
    try:
        FromInputFile.table_metadata(file_io_of(catalog, location).new_input(location))
    except Exception as failure:
        return None if unavailable(failure) else damaged(location, error)
    return None
