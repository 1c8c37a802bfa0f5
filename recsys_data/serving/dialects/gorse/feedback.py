"""Gorse's feedback: events, and back from the lake.

Feedback has no id of a recommendation. It joins the newest answer of this process that showed its item to its user.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.serving.dialects.client_events import content_id, event_line
from recsys_data.serving.dialects.declared import Dialects
from recsys_data.serving.dialects.gorse.rows import go_time, timestamp_text
from recsys_data.serving.dialects.gorse.wire import Feedback, check_id
from recsys_data.serving.models import Remembered
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake

SOURCE = "gorse"
EVENTS = "interactions"
REMEMBERED = 200_000


class Shown:
    """Which answer showed an item to a user last; what was remembered first is dropped first.

    Args:
        most: how many items of users are remembered.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._answers: Remembered[tuple[str, str], str] = Remembered(most)

    def add(self, user_id: str, item_ids: Iterable[str], recommendation_id: str) -> None:
        for item_id in item_ids:
            self._answers.put((user_id, item_id), recommendation_id)

    def answer_of(self, user_id: str, item_id: str) -> str | None:
        """The id of the recommendation; None if there was none."""
        return self._answers.get((user_id, item_id))


def feedback_lines(given: Sequence[Feedback], dialects: Dialects, shown: Shown) -> list[bytes]:
    """The lines of feedback. The same type, user, item and time is one event, however often it is sent.

    Raises:
        RequestError: 400, an id or a time makes no sense.
    """
    received_at = datetime.now(UTC)
    received = to_text(received_at)
    lines = []
    for one in given:
        check_id("FeedbackType", one.feedback_type)
        user_id, item_id = check_id("UserId", one.user_id), check_id("ItemId", one.item_id)
        at = timestamp_text(one.timestamp) if one.timestamp else received
        columns = {
            # Without a time of its own, the same feedback is taken for the same on the same day.
            "event_id": content_id(one.feedback_type, user_id, item_id, at if one.timestamp else received[:10]),
            "user_id": user_id,
            "item_id": item_id,
            "event_ts": at,
            "recommendation_id": shown.answer_of(user_id, item_id),
            "source": SOURCE,
        }
        properties = {"comment": one.comment} if one.comment else {}
        lines.append(event_line(one.feedback_type, columns, properties, dialects, received_at, one.value or None))
    return lines


def stored_feedback(
    lake: Lake,
    feedback_type: str | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    skip: int = 0,
    count: int | None = None,
) -> list[dict[str, Any]]:
    """Feedback in the lake, which is some seconds old; the newest of each type, user and item. Reads all events."""
    if not lake.exists(EVENTS):
        return []
    wanted = {"event_name": feedback_type, "user_id": user_id, "item_id": item_id}
    conditions = [f"{name} = ${name}" for name, value in wanted.items() if value is not None]
    with connect(lake, [EVENTS]) as connection:
        found = connection.execute(
            f"""SELECT event_name, user_id, item_id, strftime(event_ts AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ'),
                coalesce(rating, value, 0), json_extract_string(properties, '$.comment')
            FROM {EVENTS} WHERE source = '{SOURCE}' {"".join(f" AND {one}" for one in conditions)}
            QUALIFY row_number() OVER (PARTITION BY event_name, user_id, item_id ORDER BY event_ts DESC, event_id) = 1
            ORDER BY event_name, user_id, item_id LIMIT {count if count is not None else "ALL"} OFFSET {skip}""",
            {name: value for name, value in wanted.items() if value is not None},
        ).fetchall()
    return [
        {
            "FeedbackType": kind,
            "UserId": user,
            "ItemId": item,
            "Value": value,
            "Timestamp": go_time(at),
            "Comment": comment or "",
        }
        for kind, user, item, at, value, comment in found
    ]


def page_of(cursor: str) -> int:
    """How many feedbacks the pages before a cursor had."""
    return int(cursor) if cursor.isdecimal() and len(cursor) <= 12 else 0


def iterator(found: list[dict[str, Any]], skip: int, count: int) -> dict[str, Any]:
    """A page with the cursor of the next one."""
    return {"Cursor": str(skip + count) if len(found) == count else "", "Feedback": found}
