"""DuckDB sessions, and names and text as SQL spells them.

A session spills what does not fit into memory to a private folder of the process, never to the current one: by default
DuckDB spills to `.tmp` of the current folder, where others may read it or leave files for it to read, and sessions of
several processes take the same names there. TMPDIR names another disk.
"""

import atexit
import itertools
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

# Each thread takes its share of a session's memory, so that many of them would not get along with little.
MOST_THREADS = 4
_numbers = itertools.count()
_threads: int | None = None
_file_systems: "dict[str, AbstractFileSystem]" = {}


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def open_session(
    parallel: bool = False, memory_bytes: int | None = None, spill: Path | None = None, **config: Any
) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB session in UTC.

    Args:
        parallel: whether it uses several threads: as many as `limit_threads` says.
        memory_bytes: what it may hold before it spills; by default most of the machine's memory.
        spill: the folder to spill to; by default a private one.
        config: further settings of DuckDB.
    """
    import duckdb

    if "temp_directory" not in config:
        config["temp_directory"] = str(spill or spill_folder())
    if memory_bytes is not None:
        config["memory_limit"] = f"{max(1, memory_bytes // 1_000_000)}MB"
    connection = duckdb.connect(config={"threads": session_threads() if parallel else 1, **config})
    for files in _file_systems.values():
        connection.register_filesystem(files)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_through(files: "AbstractFileSystem") -> None:
    """Let the sessions that this process opens from now on read and write URLs of this file system's protocol."""
    _file_systems[str(files.protocol)] = files


def limit_threads(threads: int) -> None:
    """Say how many threads a parallel session of this process uses; 0: one for each processor, at most four."""
    global _threads
    _threads = threads or None


def session_threads() -> int:
    """How many threads a parallel session uses."""
    return _threads or min(len(os.sched_getaffinity(0)), MOST_THREADS)


def spill_folder() -> Path:
    """A folder for one session. DuckDB makes it when it spills, and removes it with the session."""
    return _private_folder(os.getpid()) / f"{next(_numbers)}"


@lru_cache(maxsize=1)
def _private_folder(process: int) -> Path:
    """Made once for each process, readable by its user only, and removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-data-"))

    def remove() -> None:
        # A forked child must not remove what belongs to its parent.
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
