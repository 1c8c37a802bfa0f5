"""Which Dagster runs are alive: each holds a lock file while it works, which ends with its process however it ends.

Data flow: a run opens the lake -> `$DIR/ingest/runs/RUN_ID` locked -> removed at its end, or left unlocked by a crash.
Dagster's own launcher does not look whether the process of a run is there; `monitoring/instance.py` does, by these.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from recsys_data.leases import file_lock
from recsys_data.settings import Settings

# For whoever looks at the mark in the very moment in which it is made.
WAIT_SECONDS = 1.0


@contextlib.contextmanager
def marked(settings: Settings, run_id: str) -> Iterator[None]:
    """Mark a run as alive. Of several processes of one run the first holds the mark."""
    path = _folder(settings) / run_id
    with file_lock(path, WAIT_SECONDS) as taken:
        try:
            yield
        finally:
            if taken:
                path.unlink(missing_ok=True)


def dead_runs(settings: Settings) -> list[str]:
    """Runs that ended without removing their mark."""
    folder = _folder(settings)
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with file_lock(path, 0) as free:
            if free:
                found.append(path.name)
    return found


def unmark(settings: Settings, run_id: str) -> None:
    """Forget a dead run."""
    (_folder(settings) / run_id).unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return settings.runs_dir
