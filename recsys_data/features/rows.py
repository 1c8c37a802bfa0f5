"""Rows of a source as features read them: whose they are, when they happened, when they were known, their arguments.

Columns of their own begin with #: `#ts` and `#known` in microseconds, `#o0` ... for the order within `#ts`, `#x...`
for the arguments of states. `owned` adds `#since` and `#until`, between which a row belongs to its entity.
"""

from collections.abc import Iterable

from recsys_data.contracts.features.functions import State
from recsys_data.contracts.features.view import FeatureView, Source, keys
from recsys_data.sql import quote

IDENTITIES = "identities"
ALWAYS = 'NULL::BIGINT AS "#since", NULL::BIGINT AS "#until"'


def rows(view: FeatureView, source: Source, query: str, states: Iterable[State]) -> str:
    """SQL of the rows of a stream: keys (with an anonymous id if that can stand for one), times, order, arguments.

    Rows without a time, or not known at any moment, are left out.
    """
    known = source.known or source.time
    columns = [*map(quote, keys(view, source)), f'epoch_us({quote(source.time or "")}) AS "#ts"']
    columns += [f'epoch_us({quote(known or "")}) AS "#known"']
    columns += [f'{quote(name)} AS "#o{n}"' for n, name in enumerate(source.order)]
    columns += dict.fromkeys(f"{state.argument} AS {state.column}" for state in states)
    there = f"{quote(source.time or '')} IS NOT NULL AND {quote(known or '')} IS NOT NULL"
    return f"SELECT {', '.join(columns)} FROM ({query}) WHERE {there}"


def merges(identities: str) -> str:
    """SQL of who an anonymous id belongs to, from `#since` until before `#until`.

    Args:
        identities: SQL with `anonymous_id`, `user_id`, `known_at`. Of several users of one id and moment the greatest
            counts; a user that is NULL ends a merge.
    """
    return f"""SELECT anonymous_id AS "#anonymous", user_id AS "#user", epoch_us(known_at) AS "#since",
        lead(epoch_us(known_at)) OVER (PARTITION BY anonymous_id ORDER BY known_at, user_id NULLS FIRST) AS "#until"
        FROM ({identities}) WHERE anonymous_id IS NOT NULL AND known_at IS NOT NULL"""


def owned(view: FeatureView, source: Source, query: str, merged: str | None) -> str:
    """SQL of rows or tiles with the entities that they belong to, in time.

    Args:
        view: whose entity is meant.
        source: where they are from.
        query: SQL of rows or tiles.
        merged: name of a table of `merges`, or None if nobody was merged.
    """
    if merged is None or len(keys(view, source)) == len(view.entity) or not source.identity:
        return f"SELECT *, {ALWAYS} FROM ({query})"
    user, anonymous = map(quote, source.identity)
    return f"""SELECT r.* REPLACE (coalesce({user}, "#user") AS {user}), "#since", "#until" FROM ({query}) r
        LEFT JOIN {merged} ON CASE WHEN {user} IS NULL THEN {anonymous} END = "#anonymous" """
