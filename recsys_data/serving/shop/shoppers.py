"""Whom the demo shop offers as shoppers: users who did much lately."""

import threading
import time
from typing import Any

from recsys_data.serving.visitors import EVENTS, TYPES, newest
from recsys_data.sql import literal, open_session
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake

MOST = 8
KEPT_SECONDS = 60.0
# Until there are some, a new lake is looked at again soon.
SOON_SECONDS = 3.0


class Shoppers:
    """Reads the users with the most acts of the newest days.

    Args:
        lake: where events are.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._due = 0.0
        self._found: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any]:
        """Their ids, and how many items each met; kept for a minute."""
        with self._lock:
            if time.monotonic() >= self._due:
                self._found = self._query()
                self._due = time.monotonic() + (KEPT_SECONDS if len(self._found) == MOST else SOON_SECONDS)
            return {"shoppers": self._found}

    def _query(self) -> list[dict[str, Any]]:
        if not self._lake.exists(EVENTS):
            return []
        table = self._lake.table(EVENTS)
        files = newest([task.file for task in table.scan().plan_files()])
        if not files:
            return []
        types = ", ".join(map(literal, TYPES))
        with open_session() as connection:
            rows = connection.execute(
                f"""SELECT user_id, count(DISTINCT item_id) AS items FROM ({relation(table, files)})
                WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND type IN ({types})
                GROUP BY user_id ORDER BY items DESC, user_id LIMIT {MOST}"""
            ).fetchall()
        return [{"user_id": user_id, "items": items} for user_id, items in rows]
