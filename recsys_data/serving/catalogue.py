"""The items that may be shown now, from the newest state of the item catalogue in the lake.

Data flow: current rows of `item_catalog_history`, else the newest day of `item_catalog` -> `Catalogue`, replaced as a
whole. Deleted items are in neither; items with `available` false are left out. A deployment without an item catalogue
shows every item that a model knows.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from recsys_data.contracts.model import history_name
from recsys_data.sql import open_session, quote
from recsys_data.storage.partition import files_of
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

ITEMS = "item_catalog"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What may be shown.

    Attributes:
        items: item id -> categories, the widest first, of every item that may be shown; the newest item first.
        source: the dataset that it was read from; None: there is none, and every item may be shown.
        read: whether it was; until then no item is shown, because it may be one that was deleted.
        withdrawn: items that a client deleted or hid, which the dataset may not know yet; they are not shown.
    """

    items: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str | None = None
    read: bool = True
    withdrawn: AbstractSet[str] = frozenset()

    def shows(self, item_id: str) -> bool:
        """Whether the item may be shown."""
        if item_id in self.withdrawn:
            return False
        return item_id in self.items or (self.source is None and self.read)

    def categories(self, item_id: str) -> tuple[str, ...]:
        return self.items.get(item_id, ())


class CatalogueReader:
    """Reads the catalogue again when its table has changed.

    Attributes:
        current: the newest that was read.

    Args:
        lake: where it is.
        withdrawn: gives the items that clients deleted or hid.
    """

    def __init__(self, lake: Lake, withdrawn: Callable[[], AbstractSet[str]] = frozenset) -> None:
        self.current = Catalogue(read=False)
        self._lake = lake
        self._withdrawn = withdrawn
        self._seen: tuple[str, int] | None = None

    def refresh(self) -> None:
        """Replace `current` if there is something newer."""
        self._refresh_items()
        self.withdraw()

    def withdraw(self) -> None:
        """Take over what clients deleted or hid since the last time."""
        withdrawn = self._withdrawn()
        if withdrawn != self.current.withdrawn:
            self.current = replace(self.current, withdrawn=withdrawn)

    def _refresh_items(self) -> None:
        for name in (history_name(ITEMS), ITEMS):
            if name not in self._lake.contracts or not self._lake.exists(name):
                continue
            table = self._lake.table(name)
            snapshot = table.current_snapshot()
            if snapshot is None:
                continue
            if self._seen == (name, snapshot.snapshot_id):
                return
            # A history that lost all its items is believed; one that was never written is not asked.
            self.current = Catalogue(self._read(table, name), name, withdrawn=self._withdrawn())
            self._seen = (name, snapshot.snapshot_id)
            return
        self.current, self._seen = Catalogue(withdrawn=self._withdrawn()), None

    def _read(self, table: Any, name: str) -> dict[str, tuple[str, ...]]:
        columns = {one.name for one in table.schema().fields}
        history = "is_current" in columns
        files = [path for path, _ in files_of(table, True)] if history else data_files(table)
        path = quote("category_path") if "category_path" in columns else "NULL"
        newest = f"{quote('created_at')} DESC NULLS LAST, " if "created_at" in columns else ""
        conditions = ["is_current" if history else "snapshot_date = (SELECT max(snapshot_date) FROM stored)"]
        if "available" in columns:
            conditions.append("available IS DISTINCT FROM false")
        with open_session() as connection:
            found = connection.execute(
                f"""WITH stored AS ({relation(table, files)})
                SELECT item_id, {path} FROM stored WHERE {" AND ".join(conditions)} ORDER BY {newest}item_id"""
            )
            items: dict[str, tuple[str, ...]] = {}
            paths: dict[tuple[str, ...], tuple[str, ...]] = {}
            while rows := found.fetchmany(10_000):
                for item_id, categories in rows:
                    # Few paths for many items: each is kept once.
                    given = tuple(categories or ())
                    items[item_id] = paths.setdefault(given, given)
        return items
