"""The platform as checks see it: opened read-only, so that checks change nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.settings import Settings
from recsys_data.storage.tables import NAMESPACE, Lake, open_lake

if TYPE_CHECKING:
    from pyiceberg.table import Table


class StoredLake(Lake):
    """A lake whose tables are as they are stored: none is made, and none follows its contract when it is opened."""

    def _load(self, name: str) -> "Table":
        """As of now; NoSuchTableError if there is none."""
        return self.catalog.load_table((NAMESPACE, name))


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is there; `log` and `lake` are None before their first use."""

    settings: Settings
    contracts: Mapping[str, Contract]
    log: EventLog | None
    lake: StoredLake | None


def open_deployment(settings: Settings, contracts: Mapping[str, Contract]) -> Deployment:
    """Open what is there, and make nothing that is not.

    Raises:
        UserError: the log or the catalog cannot be used.
    """
    from recsys_data.ingestion.streaming.log.open import open_log

    embedded = settings.event_log == "embedded"
    log = open_log(settings) if not embedded or (settings.log_dir / "0").is_dir() else None
    lake = None
    if settings.catalog or settings.catalog_file.exists():
        opened = open_lake(settings, contracts)
        lake = StoredLake(opened.catalog, contracts, opened.warehouse, opened.folder)
    return Deployment(settings, contracts, log, lake)
