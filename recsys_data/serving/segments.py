"""What is popular among visitors of a segment: by a column of `contexts`, such as `device_type`, or of `user_profiles`.

Data flow: what visitors met in the newest days, with the segment of each event or user -> items by the number of
visitors who met them -> lists, counted again every ten minutes. A request names its segment in its `context`.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from recsys_data.contracts import Contract
from recsys_data.contracts.types import duckdb_type
from recsys_data.errors import ContractError
from recsys_data.features.lake import check_purpose
from recsys_data.serving.visitors import EVENTS, TYPES, newest
from recsys_data.sql import literal, open_session, quote
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake

CONTEXTS, PROFILES = "contexts", "user_profiles"
PURPOSE = "personalisation"
EVERY_SECONDS = 600.0
# As long as nothing was found.
AGAIN_SECONDS = 10.0
POPULAR = 200
MOST_SEGMENTS = 1_000
# Types whose values have a name.
KINDS = ("VARCHAR", "BOOLEAN", "BIGINT", "INTEGER")


def dataset_of(column: str, contracts: Mapping[str, Contract]) -> str | None:
    """The dataset whose column makes segments; None if there is none."""
    for name in (CONTEXTS, PROFILES):
        if name in contracts and any(one.name == column for one in contracts[name].columns):
            return name
    return None


def check_segment(where: str, column: str, contracts: Mapping[str, Contract]) -> None:
    """Refuse what makes no segments.

    Raises:
        ContractError: it is no column of a dataset that has some, or of another kind; names the file.
        UserError: it may not be used for personalisation.
    """
    dataset = dataset_of(column, contracts)
    if dataset is None:
        raise ContractError(
            f"{where}: segment: {column!r} is no column of {CONTEXTS} or {PROFILES}; expected one, such as device_type."
        )
    found = next(one for one in contracts[dataset].columns if one.name == column)
    if duckdb_type(found.type) not in KINDS:
        raise ContractError(f"{where}: segment: {column} is {found.type}; expected text, true or false, or an integer.")
    check_purpose(contracts, contracts[dataset], found, PURPOSE)


class Segments:
    """Popular items by segment.

    Args:
        lake: where events are.
        columns: by which segments are made.
    """

    def __init__(self, lake: Lake, columns: Collection[str]) -> None:
        self._lake = lake
        self._columns = sorted(columns)
        self._popular: dict[str, dict[str, tuple[str, ...]]] = {}
        self._counted_at = -EVERY_SECONDS

    def popular(self, column: str, value: Any) -> tuple[str, ...]:
        """What is popular where a column has a value; empty if nothing is known of it."""
        return self._popular.get(column, {}).get(_text(value), ()) if value is not None else ()

    def refresh(self) -> None:
        """Count again, if the last time is long ago."""
        wait = EVERY_SECONDS if any(self._popular.values()) else AGAIN_SECONDS
        if time.monotonic() - self._counted_at < wait:
            return
        self._popular = {column: self._count(column) for column in self._columns}
        self._counted_at = time.monotonic()

    def _count(self, column: str) -> dict[str, tuple[str, ...]]:
        dataset = dataset_of(column, self._lake.contracts)
        if dataset is None or not all(self._lake.exists(name) for name in (EVENTS, dataset)):
            return {}
        events, others = self._rows(EVENTS), self._rows(dataset)
        if events is None or others is None:
            return {}
        key = "event_id" if dataset == CONTEXTS else "user_id"
        last = "" if dataset == CONTEXTS else f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY as_of DESC) = 1"
        types = ", ".join(map(literal, TYPES))
        with open_session() as connection:
            rows = connection.execute(
                f"""WITH segments AS (SELECT {key}, {quote(column)}::VARCHAR AS segment FROM ({others}) {last}),
                met AS (SELECT segment, item_id, count(DISTINCT coalesce(user_id, anonymous_id, session_id)) AS visitors
                    FROM ({events}) JOIN segments USING ({key})
                    WHERE type IN ({types}) AND item_id IS NOT NULL AND segment IS NOT NULL GROUP BY ALL)
                SELECT segment, list(item_id ORDER BY visitors DESC, item_id)[:{POPULAR}]
                FROM met GROUP BY segment ORDER BY sum(visitors) DESC, segment LIMIT {MOST_SEGMENTS}"""
            ).fetchall()
        return {segment: tuple(items) for segment, items in rows}

    def _rows(self, name: str) -> str | None:
        table = self._lake.table(name)
        files = newest([task.file for task in table.scan().plan_files()])
        return relation(table, files) if files else None


def _text(value: Any) -> str:
    """A value of a request as DuckDB writes it.

    >>> _text(True), _text("mobile"), _text(3)
    ('true', 'mobile', '3')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
