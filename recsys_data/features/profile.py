"""What the values of a feature view look like: how many are missing, and the mean and range of numbers, by feature."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.contracts.features.functions import NUMBER
from recsys_data.sql import open_session, quote
from recsys_data.storage.query import data_files, file_path, relation

if TYPE_CHECKING:
    from recsys_data.storage.tables import Lake


class FeatureProfile(NamedTuple):
    """One feature over some rows: the share that is NULL, and mean, least and greatest of a number."""

    name: str
    missing: float
    mean: float | None
    least: float | None
    greatest: float | None


def profile(lake: "Lake", name: str, days: Iterable[int] | None = None) -> list[FeatureProfile]:
    """The features of a view as they are stored for some days (since 1970); None: for all."""
    table, wanted = lake.table(name), None if days is None else set(days)
    files = data_files(table)
    if wanted is not None:
        files = [file_path(task.file) for task in table.scan().plan_files() if task.file.partition[0] in wanted]
    view = lake.contracts[name].view
    with open_session(parallel=True) as connection:
        rows = connection.sql(relation(table, files))
        kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
        found = []
        for feature in view.features if view else ():
            column, kind = quote(feature.name), kinds[feature.name]
            of_number = f"avg({column})::DOUBLE, min({column})::DOUBLE, max({column})::DOUBLE"
            numbers = of_number if NUMBER.fullmatch(kind) else "NULL, NULL, NULL"
            missing = f"coalesce(1 - count({column}) / nullif(count(*), 0), 0)"
            found.append(FeatureProfile(feature.name, *rows.aggregate(f"{missing}, {numbers}").fetchall()[0]))
    return found
