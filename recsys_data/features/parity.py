"""Whether served feature values are those that the lake gives: computed again at the positions they were read at.

Data flow: impressions of sampled visitors, which say features, moments and positions -> entities by positions -> the
point-in-time join over the rows that the lake had at those positions -> comparison, value by value. Counts, sums of
decimals, first and last values are equal bit for bit. A sum that halves with time (`decayed_sum`) adds doubles in
another order and agrees within 1e-9. Run alone: `recsys-data online parity`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa

from recsys_data.contracts.features.view import FeatureView
from recsys_data.days import MICROSECONDS_PER_DAY, from_microseconds, to_microseconds
from recsys_data.features.lake import FeatureSources, join_features, open_features
from recsys_data.features.point_in_time import EVENT_TIME
from recsys_data.features.stored import Stored, kept
from recsys_data.storage.query import file_path, relation

if TYPE_CHECKING:
    from recsys_data.storage.tables import Lake

INTERACTIONS = "interactions"
NEEDED = {"type", "user_id", "item_id", "event_ts", "properties"}
TOLERANCE = 1e-9
# Positions that are looked at; each takes a join over the lake.
POSITIONS = 20
SHOWN = 20
SEPARATOR = "__"

Positions = Mapping[str, Mapping[int, int]]


class Served(NamedTuple):
    """Features of one entity as they were served.

    Attributes:
        entity: key -> value.
        features: `VIEW__FEATURE` -> value as JSON has it.
    """

    entity: Mapping[str, Any]
    features: Mapping[str, Any]


class Reading(NamedTuple):
    """What was read at once.

    Attributes:
        positions: stream -> log partition -> the next position.
        moments: view -> whose values they are, in microseconds.
        served: what was.
    """

    positions: Positions
    moments: Mapping[str, int]
    served: Sequence[Served]


class Difference(NamedTuple):
    """A served value that the lake does not give."""

    feature: str
    entity: str
    moment: datetime
    served: Any
    computed: Any


class Parity(NamedTuple):
    """What was compared.

    Attributes:
        readings: at so many positions and moments.
        values: that were compared.
        within: values that are not identical but within the tolerance of sums that halve with time.
        different: values that differ.
        differences: the first of them.
    """

    readings: int
    values: int
    within: int
    different: int
    differences: Sequence[Difference]


def parity(lake: "Lake", since: datetime, most: int = POSITIONS) -> Parity:
    """Compare what was served since a moment, at the newest positions."""
    return compared(lake, readings(lake, since, most))


def readings(lake: "Lake", since: datetime, most: int = POSITIONS) -> list[Reading]:
    """What impressions say of features, the newest positions first."""
    # A contract of one's own may have fewer columns.
    if not {one.name for one in lake.contracts[INTERACTIONS].columns} >= NEEDED:
        return []
    table = lake.table(INTERACTIONS)
    first = to_microseconds(since) // MICROSECONDS_PER_DAY
    files = [file_path(task.file) for task in table.scan().plan_files() if task.file.partition[0] >= first]
    with closing(open_features()) as connection:
        rows = connection.execute(
            f"""WITH said AS (SELECT user_id, item_id, event_ts, properties->>'$.read' AS read,
                    properties->>'$.features' AS features
                FROM ({relation(table, files)}) WHERE type = 'impression' AND event_ts >= ?),
            newest AS (SELECT read, max(event_ts) AS latest FROM said WHERE features IS NOT NULL GROUP BY read
                ORDER BY latest DESC, read LIMIT {most})
            SELECT read, user_id, item_id, features FROM said JOIN newest USING (read)
            WHERE features IS NOT NULL ORDER BY latest DESC, read""",
            [since],
        ).fetchall()
    found: dict[str, list[Served]] = {}
    for read, user, item, features in rows:
        served = Served({"user_id": user, "item_id": item}, msgspec.json.decode(features))
        found.setdefault(read, []).append(served)
    listed = []
    for text, served in found.items():
        read = msgspec.json.decode(text)
        positions = {name: {int(part): at for part, at in of.items()} for name, of in read["positions"].items()}
        listed.append(Reading(positions, read["moments"], served))
    return listed


def compared(lake: "Lake", found: Iterable[Reading], shown: int = SHOWN) -> Parity:
    """Compute served values again from the lake, and compare."""
    count = values = within = different = 0
    differences: list[Difference] = []
    for reading in found:
        count += 1
        for view, moment in reading.moments.items():
            served = _of_view(reading.served, view)
            if not served:
                continue
            features = FeatureSources(lake, known=EVENT_TIME, kept=_kept(lake, reading.positions))
            declared = features.view(view)
            inexact = halving(declared)
            for entity, given, computed in _computed(lake, features, declared, moment, served):
                for name, value in given.items():
                    values += 1
                    if value == computed[name]:
                        continue
                    if name in inexact and _close(value, computed[name]):
                        within += 1
                        continue
                    different += 1
                    if len(differences) < shown:
                        said = ", ".join(f"{key} {value}" for key, value in entity.items())
                        differences.append(
                            Difference(
                                f"{view}{SEPARATOR}{name}", said, from_microseconds(moment), value, computed[name]
                            )
                        )
    return Parity(count, values, within, different, differences)


def halving(view: FeatureView) -> set[str]:
    """The features that are sums which halve with time, or are computed from one."""
    found = {one.name for one in view.features if one.function == "decayed_sum"}
    while more := {
        one.name
        for one in view.features
        if one.expression and one.name not in found and found & set(re.findall(r"\w+", one.expression))
    }:
        found |= more
    return found


def _of_view(served: Sequence[Served], view: str) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    start = f"{view}{SEPARATOR}"
    found = []
    for one in served:
        given = {name.removeprefix(start): value for name, value in one.features.items() if name.startswith(start)}
        if given:
            found.append((one.entity, given))
    return found


def _kept(lake: "Lake", positions: Positions) -> Any:
    def of(dataset: str, rows: str) -> str:
        if not lake.contracts[dataset].is_fed_by_events:
            return rows
        stored = Stored("", "", None, dict(positions.get(dataset, {})), None, 0, "")
        return kept(stored, rows)

    return of


def _computed(
    lake: "Lake",
    features: FeatureSources,
    view: FeatureView,
    moment: int,
    served: Sequence[tuple[Mapping[str, Any], dict[str, Any]]],
) -> Iterable[tuple[Mapping[str, Any], dict[str, Any], dict[str, Any]]]:
    """Each entity, its values as they were served, and as the lake gives them."""
    keys = {name: pa.array([entity[name] for entity, _ in served], pa.string()) for name in view.entity}
    at = pa.array([moment] * len(served), pa.timestamp("us", "UTC"))
    with closing(open_features()) as connection:
        spine = connection.from_arrow(pa.table({**keys, "timestamp": at}))
        joined = join_features(lake, connection, spine, [view.name], known=EVENT_TIME, features=features)
        rows = joined.to_arrow_table().to_pylist()
    start = f"{view.name}{SEPARATOR}"
    for (entity, given), row in zip(served, rows, strict=True):
        computed = {name: msgspec.json.decode(msgspec.json.encode(row[start + name])) for name in given}
        yield {name: entity[name] for name in view.entity}, given, computed


def _close(one: Any, other: Any) -> bool:
    if not isinstance(one, float | int) or not isinstance(other, float | int):
        return False
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
