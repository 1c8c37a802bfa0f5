"""Functions over the states of a history within a window, weighted by how long each state held in it.

Of a window that ends at the moment, a state counts from when it began until it ended or the moment came, whichever is
first; when it ended later is not looked at, so that nothing leaks. Where no state held, nothing counts.
"""

from collections.abc import Iterable

from recsys_data.contracts.features.view import Feature, FeatureView
from recsys_data.features.aggregates import Asked
from recsys_data.features.workspace import Workspace
from recsys_data.sql import quote

# The least value that was not exceeded for at least half of the time. Exact: times are whole numbers.
VALUES = {
    "min": "min(x)",
    "max": "max(x)",
    "median": "min(x) FILTER (2 * below >= total)",
    "avg": "sum(d * w::DECIMAL(18, 0))::DOUBLE / (sum(w) FILTER (d IS NOT NULL))::DOUBLE",
}


def windows(
    work: Workspace, view: FeatureView, features: Iterable[Feature], states: str, asked: Asked, name: str
) -> dict[str, str]:
    """Compute the functions over one history at all moments that a spine asks for.

    Args:
        work: where tables are made.
        view: whose features they are.
        features: functions over columns of the history.
        states: SQL of the history with `#from` and `#to` in microseconds.
        asked: the moments.
        name: prefix of the tables.

    Returns:
        Feature -> name of the table that has it as `value` by `m`.
    """
    entity = ", ".join(map(quote, view.entity))
    found = {}
    for feature in features:
        cutoff, begins = f"t - {feature.delay}", f"t - {feature.delay + feature.window.size}"
        x = quote(feature.column or "")
        d = f"TRY_CAST(x AS DECIMAL(18, {feature.scale}))" if feature.function == "avg" else "NULL"
        held = f"""SELECT m, {x} AS x, least("#to", {cutoff}) - greatest("#from", {begins}) AS w
            FROM ({states}) JOIN {asked.entities} USING ({entity}) JOIN {asked.moments} ON "#e" = e
            WHERE {x} IS NOT NULL AND "#from" < {cutoff} AND "#to" > {begins} AND "#from" < "#to\""""
        weighed = f"SELECT *, {d} AS d FROM ({held})"
        if feature.function == "median":
            weighed = f"""SELECT *, sum(w) OVER (PARTITION BY m ORDER BY x) AS below,
                sum(w) OVER (PARTITION BY m) AS total FROM ({held})"""
        value = VALUES[feature.function or ""]
        found[feature.name] = work.create(
            f"{name} {feature.name}", f"SELECT m, {value} AS value FROM ({weighed}) GROUP BY m"
        )
    return found
