"""Whether a feature knows the future: a sample is computed again from a lake without it, and must not differ.

Data flow: entities and moments of stored values -> join over the lake, join over the lake as it was at the moment ->
differences. It finds what conditions of the join cannot see, e.g. a source that looks ahead. Run alone:
`recsys-data features leakage item_engagement`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from recsys_data.contracts.features.view import FeatureView
from recsys_data.days import from_microseconds
from recsys_data.features.lake import FeatureSources, open_features
from recsys_data.features.point_in_time import COMMIT, join
from recsys_data.sql import quote
from recsys_data.storage.query import data_files, relation

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

    from recsys_data.storage.tables import Lake

MOMENTS, ENTITIES = 3, 200
# By which a decayed sum may differ, because doubles are added in another order.
RELATIVE = 1e-9


class Leak(NamedTuple):
    """A feature that has another value once the future is removed."""

    feature: str
    entity: tuple[Any, ...]
    moment: "datetime"
    value: Any
    value_then: Any


def leaks(
    lake: "Lake", name: str, *, known: str = COMMIT, moments: int = MOMENTS, entities: int = ENTITIES
) -> list[Leak]:
    """The features of a view that know the future, each with the first difference that was found.

    Args:
        lake: where the view and its sources are.
        name: of the view.
        known: as for `point_in_time.join`.
        moments: how many moments are looked at, spread over what is stored.
        entities: how many entities are looked at for each.

    Raises:
        UserError: there is no such view.
    """
    view = FeatureSources(lake).view(name)
    time, table = quote(lake.contracts[name].event_time.name), lake.table(name)
    found: dict[str, Leak] = {}
    with open_features() as connection:
        connection.execute(f'CREATE TEMP TABLE "#stored" AS {relation(table, data_files(table))}')
        # Between the moments of stored values, so that the rest of their day is the future.
        chosen = connection.execute(
            f"""SELECT epoch_us(t) - 43200000000 FROM (SELECT DISTINCT {time} AS t FROM "#stored") ORDER BY hash(t)
            LIMIT {moments}"""
        ).fetchall()
        for (moment,) in chosen:
            for leak in _at(lake, connection, view, time, moment, known, entities):
                found.setdefault(leak.feature, leak)
    return list(found.values())


def _at(
    lake: "Lake",
    connection: "duckdb.DuckDBPyConnection",
    view: FeatureView,
    time: str,
    moment: int,
    known: str,
    entities: int,
) -> list[Leak]:
    keys = ", ".join(map(quote, view.entity))
    request = "".join(f", NULL::{kind} AS {quote(name)}" for name, kind in view.request.items())
    # Entities of that day and the next, about which something is there to be known too early.
    spine = f"""SELECT {keys}{request}, make_timestamptz({moment}::BIGINT) AS timestamp FROM (
        SELECT DISTINCT {keys} FROM "#stored" WHERE abs(epoch_us({time}) - {moment}) <= 2 * 86400000000
        ORDER BY hash({keys}) LIMIT {entities})"""
    rows = []
    for until in (None, from_microseconds(moment)):
        features = FeatureSources(lake, until, known)
        relations = features.relations([view], known)
        joined = join(connection, connection.sql(spine), [view], features.sources, relations, known=known)
        rows.append({row[: len(view.entity)]: row for row in joined.order(keys).fetchall()})
    now, then = rows
    first = len(view.entity) + len(view.request) + 1
    return [
        Leak(feature.name, key, from_microseconds(moment), value, then[key][first + n])
        for key, row in now.items()
        for n, feature in enumerate(view.features)
        if differ(value := row[first + n], then[key][first + n])
    ]


def differ(one: Any, other: Any) -> bool:
    """Whether two values of a feature are not the same."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) > RELATIVE * max(abs(one), abs(other))
    return one != other
