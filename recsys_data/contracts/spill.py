"""Where DuckDB sessions put what does not fit into memory: a private folder of the process, never the current one.

By default DuckDB spills to `.tmp` of the current folder, where others may read it or leave files for it to read, and
sessions of several processes take the same names there. TMPDIR names another disk.
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

_numbers = itertools.count()


def open_session(threads: int = 1, **config: Any) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB session in UTC that spills to a folder of its own; `config` holds further settings."""
    import duckdb

    if "temp_directory" not in config:
        config["temp_directory"] = str(spill_folder())
    connection = duckdb.connect(config={"threads": threads, **config})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


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
