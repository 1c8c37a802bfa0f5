"""The values of views over histories, such as the attributes of items: those of a moment, computed by the join.

A history changes with each snapshot, once a day or so, and a window over it moves on slowly. Its values are therefore
computed for all entities at once, whenever the history changes and at least once an hour; what is read says which
moment they are of.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
import pyarrow as pa

from recsys_data.features.lake import FeatureSources, open_features
from recsys_data.features.point_in_time import EVENT_TIME, join
from recsys_data.serving.online import gather
from recsys_data.serving.online.kinds import arrow_type, kept_as, restored
from recsys_data.serving.online.layout import KNOWN, OnlineView
from recsys_data.sql import quote

# Microseconds after which values are computed again though nothing changed.
AGE = 3_600_000_000
BATCH = 20_000


def sources(online: OnlineView) -> list[str]:
    """The histories of a view; none if it is over streams."""
    if online.streams:
        return []
    view = online.view
    return list(dict.fromkeys(view.source_of(one) for one in view.features if not one.expression))


def key_of(online: OnlineView, values: Sequence[Any]) -> bytes:
    """The key of the values of an entity."""
    return msgspec.msgpack.encode((online.view.name, gather.KNOWN, *values))


def prefix(online: OnlineView) -> bytes:
    """What all keys of the view begin with."""
    nothing = [None] * len(online.view.entity)
    return key_of(online, nothing)[: -len(nothing)]


def values(features: FeatureSources, online: OnlineView, moment: int) -> Mapping[bytes, bytes]:
    """The values of all entities that have a state at a moment, by key.

    Args:
        features: what the lake holds.
        online: a view over histories.
        moment: in microseconds.
    """
    view = online.view
    keys = ", ".join(map(quote, view.entity))
    found: dict[bytes, bytes] = {}
    with closing(open_features()) as connection:
        there = " AND ".join(f"{key} IS NOT NULL" for key in map(quote, view.entity))
        states = []
        for name in sources(online):
            begins, ends = map(quote, features.sources[name].valid or ("", ""))
            valid = f"epoch_us({begins}) <= {moment} AND coalesce(epoch_us({ends}) > {moment}, true)"
            states.append(f"SELECT {keys} FROM ({features.rows(name)}) WHERE {there} AND {valid}")
        spine = f"SELECT *, make_timestamptz({moment}::BIGINT) AS timestamp FROM ({' UNION '.join(states)})"
        relations = features.relations([view], EVENT_TIME)
        joined = join(
            connection, connection.sql(spine), [view], features.sources, relations, known=EVENT_TIME, values_only=True
        )
        types = online.resolved.types
        listed = [kept_as(types[one.name], quote(f"{view.name}__{one.name}")) for one in view.features]
        query = f"SELECT {keys}, {', '.join(listed)} FROM ({joined.sql_query()})"
        rows = connection.execute(query)
        number = len(view.entity)
        while some := rows.fetchmany(BATCH):
            for row in some:
                found[key_of(online, row[:number])] = msgspec.msgpack.encode(row[number:])
    return found


def restore(online: OnlineView, stored: Sequence[bytes | None]) -> pa.Table:
    """Values of entities as columns of features; NULL where nothing is stored."""
    features = online.view.features
    nothing = [None] * len(features)
    rows = [msgspec.msgpack.decode(one) if one else nothing for one in stored]
    columns = list(zip(*rows, strict=True)) or [()] * len(features)
    kinds = [online.resolved.types[one.name] for one in features]
    found = {
        one.name: restored(column, kind, arrow_type(kind))
        for one, column, kind in zip(features, columns, kinds, strict=True)
    }
    return pa.table({**found, KNOWN: pa.array([bool(one) for one in stored])})
