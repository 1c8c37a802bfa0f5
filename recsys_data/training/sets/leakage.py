"""Whether the features of a training set know the future: rows are computed again from a lake without it.

At some moments, entities of rows near them get their features twice: from all that the lake held at the build, and from
what had happened and was known by the moment. A feature that differs is refused. Labels are not features: views cannot
see their columns.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from recsys_data.contracts.features.check import over_histories
from recsys_data.contracts.features.sources import sources_of
from recsys_data.days import from_microseconds
from recsys_data.errors import UserError
from recsys_data.features.lake import FeatureSources, join_features
from recsys_data.features.leakage import differ
from recsys_data.features.stored import Stored, StoredThen
from recsys_data.training.sets.declared import TrainingSet

if TYPE_CHECKING:
    import duckdb

    from recsys_data.storage.tables import Lake

MOMENTS, ROWS = 3, 100


def check_leakage(
    lake: "Lake", connection: "duckdb.DuckDBPyConnection", declared: TrainingSet, stored: Mapping[str, Stored]
) -> dict[str, int]:
    """Compare features with and without the future on a sample of `#rows`.

    Returns:
        How many rows were compared, at how many moments.

    Raises:
        UserError: names the features that differ, with one row each.
    """
    chosen = connection.execute(
        f"""SELECT epoch_us(timestamp) AS moment FROM "#rows" GROUP BY moment
        ORDER BY min(md5_number_lower(event_id || ':{declared.seed}:leakage')), moment LIMIT {MOMENTS}"""
    ).fetchall()
    compared = 0
    found: dict[str, str] = {}
    for (moment,) in sorted(chosen):
        values = []
        for until in (None, from_microseconds(moment)):
            then = StoredThen(lake, declared.known, stored)
            sources = FeatureSources(lake, until, declared.known, then.kept)
            spine = connection.sql(
                f"""SELECT * REPLACE (make_timestamptz({moment}::BIGINT) AS timestamp) FROM "#rows"
                ORDER BY abs(epoch_us(timestamp) - {moment}), event_id, "#k" LIMIT {ROWS}"""
            )
            joined = join_features(
                lake,
                connection,
                spine,
                declared.features,
                purpose=declared.purpose,
                known=declared.known,
                features=sources,
            )
            names = joined.columns[len(spine.columns) :]
            values.append(joined.fetchall())
        first = len(values[0][0]) - len(names) if values[0] else 0
        compared += len(values[0])
        for now, without in zip(*values, strict=True):
            for at, name in enumerate(names, first):
                if name not in found and differ(now[at], without[at]):
                    found[name] = f"{name} of {now[0]} at {from_microseconds(moment)}: {now[at]}, {without[at]} without"
    if found:
        raise UserError(
            f"{declared.name}: {len(found)} features change when everything after a row's time is removed: "
            f"{'; '.join(found.values())}. Correct what they are computed from, or leave them out."
        )
    return {"rows": compared, "moments": len(chosen)}


def steady(lake: "Lake", views: Iterable[str]) -> set[str]:
    """Columns of features that add doubles, whose last digits depend on the order of rows; files keep six digits."""
    sources = sources_of(lake.contracts)
    found = set()
    for name in views:
        view = lake.contracts[name].view
        assert view is not None
        features = over_histories(view, sources).features
        if any(one.function == "decayed_sum" or one.over_states for one in features):
            found |= {
                f"{name}__{one.name}"
                for one in features
                if one.function == "decayed_sum" or one.over_states or one.expression
            }
    return found
