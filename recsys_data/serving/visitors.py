"""What visitors met lately, in bounded memory: for filters of seen items and for candidates of a session.

Data flow: `interactions` in the lake, followed by log position several times a second -> the last items of each user,
device and session. A row is taken once: those from the positions before up to the positions of the table's ledger.
An online store does the same for more visitors than fit into memory, and survives a restart.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from recsys_data.serving.answers import Recent, Request
from recsys_data.serving.delays import EventDelays
from recsys_data.sql import literal, open_session
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.query import data_files, file_path, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

EVENTS = "interactions"
# What a visitor did to an item; being shown one is not an act.
TYPES = ("view", "click", "add_to_cart", "purchase", "like", "rating", "bookmark", "share")
ITEMS_KEPT = 50
KEYS_KEPT = 300_000
# At the start the newest days are read, until there are so many rows of files.
ROWS_AT_START = 2_000_000

NOTHING = Recent()


class RecentItems:
    """The last items of users, devices and sessions; those that met nothing for the longest are dropped.

    Args:
        most: how many users, devices and sessions are kept.
    """

    def __init__(self, most: int = KEYS_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, rows: Iterable[tuple[str | None, str | None, str | None, str]]) -> None:
        """Add what was met, in the order in which it was: user, device, session, item."""
        for user_id, anonymous_id, session_id, item_id in rows:
            for key in keys(user_id, anonymous_id, session_id):
                before = self._kept.pop(key, ())
                # A new tuple: readers in other threads see the old one or the new one.
                self._kept[key] = (*(one for one in before if one != item_id), item_id)[-ITEMS_KEPT:]
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def recent_items(self, request: Request) -> Recent:
        """What the visitor of a request met; see `Visitors`."""
        found = [self._kept.get(key, ()) for key in keys(request.user_id, request.anonymous_id, request.session_id)]
        if not any(found):
            return NOTHING
        session = found[-1] if request.session_id else ()
        # The user's own, then those of the device, then those of the session, of which the last count most.
        items = tuple(reversed(dict.fromkeys(item for one in reversed(found) for item in reversed(one))))
        return Recent(items, session)


def keys(user_id: str | None, anonymous_id: str | None, session_id: str | None) -> list[str]:
    """What a visitor is known by; a session last.

    >>> keys("u", None, "s")
    ['user/u', 'session/s']
    """
    given = (("user", user_id), ("device", anonymous_id), ("session", session_id))
    return [f"{kind}/{value}" for kind, value in given if value]


class LakeFollower:
    """Adds to `RecentItems` what the lake has got since the last time.

    Attributes:
        positions: next position of each log partition that is read; None before the first time.

    Args:
        lake: is followed.
        visitors: get what is new.
        delays: learn what has come since the first time.
    """

    def __init__(self, lake: Lake, visitors: RecentItems, delays: EventDelays | None = None) -> None:
        self.positions: dict[int, int] | None = None
        self._lake = lake
        self._visitors = visitors
        self._delays = delays
        self._snapshot: int | None = None
        self._files: set[str] = set()

    def refresh(self) -> None:
        """Read what is new."""
        if not self._lake.exists(EVENTS):
            return
        table = self._lake.table(EVENTS)
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.snapshot_id == self._snapshot:
            return
        ledger = dict(read_ledger(table).positions)
        if self.positions is None:
            planned = [task.file for task in table.scan().plan_files()]
            here = [file_path(file) for file in planned]
            self._visitors.add(row[:4] for row in self._rows(table, newest(planned), "true"))
        else:
            here = data_files(table)
            # Compaction writes old rows to new files.
            added = [path for path in here if path not in self._files]
            moved = {part: self.positions.get(part, 0) for part, end in ledger.items()}
            if added and moved:
                after = " OR ".join(f"(log_partition = {part} AND log_offset >= {at})" for part, at in moved.items())
                rows = self._rows(table, added, after)
                self._visitors.add(row[:4] for row in rows)
                if self._delays:
                    self._delays.arrived((keys(*row[:3]), row[4]) for row in rows)
        self.positions, self._files, self._snapshot = ledger, set(here), snapshot.snapshot_id

    def _rows(self, table: "Table", files: Sequence[str], condition: str) -> list[tuple[Any, ...]]:
        if not files:
            return []
        types = ", ".join(map(literal, TYPES))
        # `log_offset` is a position of the log, where events of one visitor come in the order of their arrival.
        with open_session() as connection:
            return connection.execute(
                f"""SELECT user_id, anonymous_id, session_id, item_id, epoch(received_at)
                FROM ({relation(table, files)})
                WHERE type IN ({types}) AND item_id IS NOT NULL AND ({condition})
                ORDER BY event_ts, log_partition, log_offset"""
            ).fetchall()


def newest(files: "Sequence[DataFile]") -> list[str]:
    """The files of the newest days, until they have enough rows."""
    by_day = sorted(files, key=lambda file: file.partition[0], reverse=True)
    found, rows = [], 0
    for file in by_day:
        if rows >= ROWS_AT_START:
            break
        found.append(file_path(file))
        rows += file.record_count
    return found
