"""The items that may be shown now, from the newest state of the item catalogue in the lake.

Data flow: current rows of `item_catalog_history`, else the newest day of `item_catalog` -> `Catalogue`, replaced as a
whole. Deleted items are in neither; items with `available` false are left out. A deployment without an item catalogue
shows every item that a model knows.
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from recsys_data.contracts import rules
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
        broken: rule (SQL) -> items that break it.
    """

    items: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str | None = None
    read: bool = True
    withdrawn: AbstractSet[str] = frozenset()
    broken: Mapping[str, AbstractSet[str]] = field(default_factory=dict)

    def shows(self, item_id: str) -> bool:
        """Whether the item may be shown."""
        if item_id in self.withdrawn:
            return False
        return item_id in self.items or (self.source is None and self.read)

    def categories(self, item_id: str) -> tuple[str, ...]:
        return self.items.get(item_id, ())


class Rows(NamedTuple):
    """The newest state of the item catalogue.

    Attributes:
        version: dataset and snapshot.
        table: in which it is.
    """

    version: tuple[str, int]
    table: Any

    @property
    def columns(self) -> set[str]:
        return {one.name for one in self.table.schema().fields}

    @property
    def sql(self) -> str:
        """SQL of the rows; looks for the files."""
        history = "is_current" in self.columns
        files = [path for path, _ in files_of(self.table, True)] if history else data_files(self.table)
        stored = relation(self.table, files)
        newest = "is_current" if history else f"snapshot_date = (SELECT max(snapshot_date) FROM ({stored}))"
        return f"SELECT * FROM ({stored}) WHERE {newest}"


def current_rows(lake: Lake) -> Rows | None:
    """The items that are in the catalogue now; None if there is none."""
    for name in (history_name(ITEMS), ITEMS):
        if name not in lake.contracts or not lake.exists(name):
            continue
        table = lake.table(name)
        # A history that lost all its items is believed; one that was never written is not asked.
        if snapshot := table.current_snapshot():
            return Rows((name, snapshot.snapshot_id), table)
    return None


class CatalogueReader:
    """Reads the catalogue again when its table has changed.

    Attributes:
        current: the newest that was read.

    Args:
        lake: where it is.
        withdrawn: gives the items that clients deleted or hid.
        rules: SQL over a row of the catalogue, of which items break some.
    """

    def __init__(
        self, lake: Lake, withdrawn: Callable[[], AbstractSet[str]] = frozenset, rules: Iterable[str] = ()
    ) -> None:
        self.current = Catalogue(read=False)
        self._lake = lake
        self._withdrawn = withdrawn
        self._rules = list(dict.fromkeys(rules))
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
        rows = current_rows(self._lake)
        if rows is None:
            self.current, self._seen = Catalogue(withdrawn=self._withdrawn()), None
        elif self._seen != rows.version:
            items, broken = self._read(rows)
            self.current = Catalogue(items, rows.version[0], withdrawn=self._withdrawn(), broken=broken)
            self._seen = rows.version

    def _read(self, rows: Rows) -> tuple[dict[str, tuple[str, ...]], dict[str, set[str]]]:
        columns = rows.columns
        path = quote("category_path") if "category_path" in columns else "NULL"
        newest = f"{quote('created_at')} DESC NULLS LAST, " if "created_at" in columns else ""
        available = "available IS DISTINCT FROM false" if "available" in columns else "true"
        # As in contracts, a rule is broken where it is false; where it cannot be computed, nothing is known.
        flags = "".join(f", TRY({rule}) IS FALSE" for rule in self._rules)
        items: dict[str, tuple[str, ...]] = {}
        broken: dict[str, set[str]] = {rule: set() for rule in self._rules}
        paths: dict[tuple[str, ...], tuple[str, ...]] = {}
        with open_session() as connection:
            if self._rules:
                rules.prepare(connection)
                rules.set_variables(connection, date(1970, 1, 1), datetime.now(UTC))
            found = connection.execute(
                f"SELECT item_id, {path}{flags} FROM ({rows.sql}) WHERE {available} ORDER BY {newest}item_id"
            )
            while some := found.fetchmany(10_000):
                for item_id, categories, *breaks in some:
                    # Few paths for many items: each is kept once.
                    given = tuple(categories or ())
                    items[item_id] = paths.setdefault(given, given)
                    for rule, is_broken in zip(self._rules, breaks, strict=True):
                        if is_broken:
                            broken[rule].add(item_id)
        return items, broken
