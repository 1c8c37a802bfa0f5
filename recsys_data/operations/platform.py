"""Settings, contracts, event log and lake of one deployment, opened together, and what their errors say to users."""

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys_data.errors import RecsysDataError
from recsys_data.redaction import redacted
from recsys_data.settings import Settings
from recsys_data.storage.availability import unavailable

if TYPE_CHECKING:
    from recsys_data.contracts import Contract
    from recsys_data.ingestion.streaming.log import EventLog
    from recsys_data.storage.tables import Lake


ADVICE = {
    errno.ENOSPC: "Free space there, or move RECSYS_DATA_DIR to a disk with more.",
    errno.EDQUOT: "Free space there, or move RECSYS_DATA_DIR to a disk with more.",
    errno.EACCES: "Correct its permissions, or choose another place.",
    errno.EPERM: "Correct its permissions, or choose another place.",
    errno.ENOENT: "Check the path.",
    errno.EISDIR: "Expected a file.",
    errno.EROFS: "Choose a place that can be written.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}


def explain(error: Exception) -> str | None:
    """What went wrong and what to do; None for a defect."""
    if isinstance(error, RecsysDataError):
        return str(error)
    if away := unavailable(error):
        return str(away)
    # click ends quietly when the reader went away, as in `recsys-data sql ... | head`.
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}. {ADVICE.get(error.errno or 0, '')}".strip()
    # An error of a module that was not imported cannot have been raised.
    catalog = sys.modules.get("recsys_data.storage.iceberg.catalog")
    if catalog and isinstance(error, catalog.commit_failures()):
        said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        return (
            f"The lake's catalog cannot be used now: {redacted(said[0]).removesuffix('.')}. Check its disk and "
            "permissions, or that its server runs."
        )
    return None


@dataclass(frozen=True, slots=True)
class Platform:
    """The settings, and the contracts, log and lake that they name."""

    settings: Settings
    contracts: "Mapping[str, Contract]"
    log: "EventLog"
    lake: "Lake"


@contextmanager
def opened() -> Iterator[Platform]:
    """The event log and the lake of the environment's settings.

    Raises:
        UserError: a setting, a contract or the state folder cannot be used.
    """
    from recsys_data.contracts import load_contracts
    from recsys_data.storage.tables import open_lake

    settings = Settings.from_env()
    contracts = load_contracts(*settings.contract_dirs)
    lake = open_lake(settings, contracts)
    with opened_log(settings) as log:
        yield Platform(settings, contracts, log, lake)


@contextmanager
def opened_log(settings: Settings) -> Iterator["EventLog"]:
    """The event log alone."""
    from recsys_data.ingestion.streaming.log.open import open_log

    log = open_log(settings)
    try:
        yield log
    finally:
        log.close()
