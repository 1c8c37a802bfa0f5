"""A platform whose events are written in a few words."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from recsys_data_tests.support.platform import Platform

START = datetime(2026, 1, 10, tzinfo=UTC)


class Shop(Platform):
    """Events happen in hours since START, and are known when they happened."""

    number = 0

    def happen(self, *events: Any) -> None:
        """Append events, each of hours since START, type, user and item, or further fields; and consume them."""
        lines = []
        for hours, kind, user, item, *more in events:
            self.number += 1
            at = (START + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
            event = {"event_id": f"e{self.number}", "type": kind, "user_id": user, "item_id": item}
            event |= {"event_ts": at, "received_at": at, **(more[0] if more else {})}
            lines.append(json.dumps({key: value for key, value in event.items() if value is not None}).encode())
        self.append(lines)
        self.consume()
