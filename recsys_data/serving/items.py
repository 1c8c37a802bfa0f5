"""What pages show of items: titles, categories, prices, from the newest state of the item catalogue in the lake.

Data flow: `GET /v1/items?ids=` -> rows of the current files of the catalogue -> JSON. Rows that were read are kept
until the table changes.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.model import Contract, history_name
from recsys_data.errors import UserError
from recsys_data.serving.catalogue import ITEMS
from recsys_data.sql import open_session, quote
from recsys_data.storage.partition import files_of
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

# What a shop shows to everybody. Other columns are nobody's business, such as ids in other systems.
SHOWN = ("item_type", "title", "brand", "category_path", "price", "currency", "released", "available")
MAX_IDS = 100
MAX_ID_LENGTH = 256
# Of texts and lists.
MAX_TEXT = 500
MAX_PARTS = 20
KEPT = 20_000
LOOK_SECONDS = 1.0

Item = dict[str, Any]


class Items:
    """Reads what is shown of items.

    Args:
        lake: where the catalogue is.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._looked_at = -LOOK_SECONDS
        self._state: tuple[str, int] | None = None
        self._table: Table | None = None
        self._files: list[str] = []
        self._kept: dict[str, Item | None] = {}

    def find(self, ids: Iterable[str]) -> list[Item]:
        """The items that are in the catalogue, in the order in which they are asked for, each once.

        Runs for as long as a query takes: some milliseconds, less for items that were asked for before.
        """
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            self._look()
            missing = [one for one in wanted if one not in self._kept]
            if missing:
                if len(self._kept) + len(missing) > KEPT:
                    self._kept.clear()
                    missing = wanted
                found = self._read(missing)
                self._kept.update({one: found.get(one) for one in missing})
            return [item for one in wanted if (item := self._kept[one]) is not None]

    def _look(self) -> None:
        """Forget what was read if the table has changed."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        for name in (history_name(ITEMS), ITEMS):
            if name not in self._lake.contracts or not self._lake.exists(name):
                continue
            table = self._lake.table(name)
            snapshot = table.current_snapshot()
            if snapshot is None:
                continue
            if self._state != (name, snapshot.snapshot_id):
                history = name != ITEMS
                self._files = [path for path, _ in files_of(table, True)] if history else data_files(table)
                self._state, self._table = (name, snapshot.snapshot_id), table
                self._kept.clear()
            return
        self._state, self._table, self._files = None, None, []
        self._kept.clear()

    def _read(self, ids: list[str]) -> Mapping[str, Item]:
        if self._state is None or self._table is None or not self._files:
            return {}
        name = self._state[0]
        columns = columns_shown(self._lake.contracts[name])
        newest = "true" if name != ITEMS else "snapshot_date = (SELECT max(snapshot_date) FROM stored)"
        selected = ", ".join(map(quote, ("item_id", *columns)))
        with open_session() as connection:
            rows = connection.execute(
                f"""WITH stored AS ({relation(self._table, self._files)})
                SELECT {selected} FROM stored WHERE list_contains($ids, item_id) AND {newest}""",
                {"ids": ids},
            ).fetchall()
        return {row[0]: {"item_id": row[0], **_shown(columns, row[1:])} for row in rows}


def columns_shown(contract: Contract) -> list[str]:
    """The columns that are shown: of those that shops show, the ones that the contract says are for everybody.

    >>> from recsys_data.contracts import load_contracts
    >>> columns_shown(load_contracts()["item_catalog"])[:3]
    ['item_type', 'title', 'brand']
    """
    open_to_all = {one.name for one in contract.columns if not one.classification and not one.permitted_use}
    return [name for name in SHOWN if name in open_to_all]


def ids_of(given: str) -> list[str]:
    """The ids of the parameter `ids`, separated by commas.

    Raises:
        UserError: there are none, too many, or one is too long.

    >>> ids_of("a,b,,a")
    ['a', 'b', 'a']
    """
    ids = [one for one in given.split(",") if one]
    if not ids:
        raise UserError("ids is missing or empty; expected ids of items, separated by commas.")
    if len(ids) > MAX_IDS:
        raise UserError(f"ids has {len(ids)} items; expected at most {MAX_IDS}. Ask in several requests.")
    if any(len(one) > MAX_ID_LENGTH for one in ids):
        raise UserError(f"An id has more than {MAX_ID_LENGTH} characters, which no item has.")
    return ids


def _shown(columns: Iterable[str], values: Iterable[Any]) -> Item:
    return {name: _plain(value) for name, value in zip(columns, values, strict=True) if value is not None}


def _plain(value: Any) -> Any:
    """A value as JSON has it, of limited size."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list):
        return [_plain(one) for one in value[:MAX_PARTS] if one is not None]
    return value.isoformat() if isinstance(value, date) else value
