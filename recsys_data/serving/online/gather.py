"""Rows of a stream become pieces of the entities that they belong to: the same SQL as for tiles, then arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from recsys_data.contracts.features.functions import DECAYED, SORT_KEY, State
from recsys_data.features.intervals import floor
from recsys_data.features.merging import limbs_of
from recsys_data.features.rows import rows
from recsys_data.serving.online.kinds import kept_as
from recsys_data.serving.online.layout import ALL, MOMENT, Group, Layout
from recsys_data.serving.online.pieces import Elements, Pieces, none_of
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# Whose pieces a key names: those of a user, or those of an anonymous id that may belong to a user later.
KNOWN, ANONYMOUS = "k", "a"


def key_of(layout: Layout, whose: str, values: Sequence[Any]) -> bytes:
    """The key of the pieces of an entity.

    Args:
        layout: of the view.
        whose: KNOWN; or ANONYMOUS, where the anonymous id stands in the place of the user.
        values: of the keys of the view.
    """
    return msgspec.msgpack.encode((layout.view.name, layout.name, whose, *values))


@dataclass
class Gathered:
    """What rows say.

    Attributes:
        keys: of the entities, by their number.
        groups: for each group of the layout, pieces and what has to wait, not merged.
    """

    keys: list[bytes]
    groups: list[tuple[Pieces, Pieces]]


def gather(connection: "duckdb.DuckDBPyConnection", layout: Layout, query: str, now: int) -> Gathered:
    """Pieces of rows.

    Args:
        connection: of `open_features`.
        layout: of the stream.
        query: SQL of the rows.
        now: the moment, in microseconds, after which what happened has to wait.
    """
    states = tuple(dict.fromkeys(state for group in layout.groups for state in group.states))
    numbers: dict[bytes, int] = {}
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE "#online" AS
        SELECT {_whose(layout)} AS "#whose", * FROM ({rows(layout.view, layout.source, query, states)})
        WHERE {_there(layout)}"""
    )
    groups = []
    for group in layout.groups:
        due = f'"#ts" < {now - group.delay}'
        pieces = _gather(connection, layout, group, group.hop, due, numbers)
        groups.append((pieces, _gather(connection, layout, group, MOMENT, f"NOT ({due})", numbers)))
    connection.execute('DROP TABLE "#online"')
    return Gathered(list(numbers), groups)


def _whose(layout: Layout) -> str:
    if not layout.anonymous:
        return f"'{KNOWN}'"
    user = quote(layout.source.identity[0]) if layout.source.identity else "NULL"
    return f"CASE WHEN {user} IS NULL THEN '{ANONYMOUS}' ELSE '{KNOWN}' END"


def _values(layout: Layout) -> list[str]:
    """SQL of the values of a key."""
    user = layout.source.identity[0] if layout.anonymous and layout.source.identity else None
    return [
        f"coalesce({quote(name)}, {quote(layout.anonymous or '')})" if name == user else quote(name)
        for name in layout.view.entity
    ]


def _there(layout: Layout) -> str:
    return " AND ".join(f"{sql} IS NOT NULL" for sql in _values(layout))


def _gather(
    connection: "duckdb.DuckDBPyConnection",
    layout: Layout,
    group: Group,
    hop: int,
    condition: str,
    numbers: dict[bytes, int],
) -> Pieces:
    happened = '"#ts"'
    start = {MOMENT: happened, ALL: "0"}.get(hop) or floor(happened, hop)
    columns = group.columns
    selected = [f"{sql} AS {quote(f'#k{n}')}" for n, sql in enumerate(_values(layout))]
    for number, state in enumerate(group.states):
        gathered = state.gather.format(at=happened, to=f'"#start" + {hop}')
        selected.append(f"{gathered} AS {quote(f'#s{number}')}")
    whose = ", ".join(f'"#k{n}"' for n in range(len(layout.view.entity)))
    query = f"""SELECT "#whose", "#start", {", ".join(selected)}
        FROM (SELECT *, {start} AS "#start" FROM "#online" WHERE {condition}) GROUP BY "#whose", {whose}, "#start\""""
    listed = [f'"#whose", {whose}, "#start"']
    for number, state in enumerate(group.states):
        name = f"#s{number}"
        if state not in columns.best:
            listed.append(quote(name))
            continue
        key, value = _ordered(state, quote(name), layout.kinds[state])
        listed += [f"{key} AS {quote(f'{name} key')}", f"{value} AS {quote(f'{name} value')}"]
    found = connection.sql(f"SELECT {', '.join(listed)} FROM ({query})").to_arrow_table().combine_chunks()
    if not found.num_rows:
        return none_of(group)
    values = [found.column(f"#k{n}").to_pylist() for n in range(len(layout.view.entity))]
    named = map(msgspec.msgpack.encode, zip(*_constant(layout, found), *values, strict=True))
    entity = np.array([numbers.setdefault(key, len(numbers)) for key in named], np.int64)
    return _arrays(group, found, entity)


def _constant(layout: Layout, found: "pa.Table") -> "list[list[str]]":
    count = found.num_rows
    return [[layout.view.name] * count, [layout.name] * count, found.column("#whose").to_pylist()]


def _ordered(state: State, value: str, kind: str) -> tuple[str, str]:
    """SQL of sort keys and of what is kept, lists if the state is one."""
    if state.elements:
        key = f"list_transform({value}, lambda one: {SORT_KEY.format(s='one')})"
        return key, f"list_transform({value}, lambda one: {kept_as(kind, 'one.value')})"
    key = f"CASE WHEN {value} IS NOT NULL THEN {SORT_KEY.format(s=value)} END"
    return key, kept_as(kind, f"{value}.value" if state.struct else value)


def _arrays(group: Group, found: "pa.Table", entity: Any) -> Pieces:
    columns = group.columns
    whole = np.zeros((len(entity), columns.width), np.int64)
    real = np.zeros((len(entity), len(columns.real)))
    hashes: list[Elements] = []
    best: list[Elements] = []
    for number, state in enumerate(group.states):
        if state in columns.best:
            key, value = (_chunk(found, f"#s{number} {what}") for what in ("key", "value"))
            best.append(_elements(key, value, bool(state.elements)))
            continue
        values = _chunk(found, f"#s{number}")
        if state in columns.hashes:
            hashes.append(_elements(values, None, True))
            continue
        first, width = columns.whole[state]
        if width == 1 and state.merge != DECAYED:
            whole[:, first] = values.fill_null(0).to_numpy(zero_copy_only=False)
            continue
        whole[:, first] = values.is_valid().to_numpy(zero_copy_only=False)
        if state.merge == DECAYED:
            real[:, columns.real[state]] = values.fill_null(0).to_numpy(zero_copy_only=False)
        else:
            whole[:, first + 1 : first + width] = _limbs(values, width - 1)
    return Pieces(entity, found.column("#start").to_numpy(), whole, real, hashes, best)


def _chunk(found: "pa.Table", name: str) -> Any:
    column = found.column(name)
    return column.chunk(0) if column.num_chunks else column.combine_chunks()


def _limbs(values: Any, most: int) -> Any:
    """Decimals as limbs, of which there are `most`; the last one has what is left."""
    import pyarrow as pa

    wide = pa.decimal128(38, values.type.scale) if pa.types.is_decimal(values.type) else pa.decimal128(38, 0)
    limbs = limbs_of(values.cast(wide).fill_null(0))
    found = np.zeros((len(values), most), np.int64)
    for number, limb in enumerate(limbs):
        place = min(number, most - 1)
        found[:, place] += limb << 32 * (number - place)
    return found


def _elements(keys_: Any, values: Any, lists: bool) -> Elements:
    if lists:
        piece = keys_.value_parent_indices()
        keys_, values = keys_.flatten(), None if values is None else values.flatten()
    else:
        import pyarrow as pa

        piece = pa.array(np.flatnonzero(keys_.is_valid().to_numpy(zero_copy_only=False)))
        keys_, values = keys_.drop_null(), values.drop_null()
    if values is None:
        return Elements(piece.to_numpy().astype(np.int64), keys_.to_numpy())
    return Elements(piece.to_numpy().astype(np.int64), _objects(keys_), _objects(values))


def _objects(values: Any) -> Any:
    found = np.empty(len(values), object)
    found[:] = values.to_pylist()
    return found
