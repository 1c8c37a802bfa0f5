"""What the values of a feature view look like: how many are missing, and of numbers mean, range and distribution."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.contracts.features.functions import NUMBER
from recsys_data.sql import open_session, quote
from recsys_data.storage.query import data_files, file_path, relation

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from recsys_data.storage.tables import Lake

BINS = 12
BARS = " ▁▂▃▄▅▆▇█"


class FeatureProfile(NamedTuple):
    """One feature over some rows.

    Attributes:
        name: of the feature.
        missing: share that is NULL.
        mean: of a number; None if it is none, or all are missing.
        least: of a number.
        greatest: of a number.
        counts: of a number, how many values lie in each of BINS intervals of equal width from least to greatest.
    """

    name: str
    missing: float
    mean: float | None
    least: float | None
    greatest: float | None
    counts: tuple[int, ...] = ()

    @property
    def bars(self) -> str:
        """The distribution as a line of bars.

        >>> FeatureProfile("clicks", 0.0, 1.2, 0.0, 11.0, (80, 40, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1)).bars
        '█▄▁        ▁'
        """
        most = max(self.counts, default=0)
        # What is there is seen, however rare.
        heights = (
            (count * (len(BARS) - 1) + most - 1) // most if count < most else len(BARS) - 1 for count in self.counts
        )
        return "".join(BARS[height] for height in heights)


def profile(lake: "Lake", name: str, days: Iterable[int] | None = None) -> list[FeatureProfile]:
    """The features of a view as they are stored for some days (since 1970); None: for all."""
    table, wanted = lake.table(name), None if days is None else set(days)
    files = data_files(table)
    if wanted is not None:
        files = [file_path(task.file) for task in table.scan().plan_files() if task.file.partition[0] in wanted]
    view = lake.contracts[name].view
    with open_session(parallel=True) as connection:
        connection.execute(f"CREATE TEMP TABLE rows AS {relation(table, files)}")
        rows = connection.table("rows")
        kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
        return [_profile(rows, one.name, kinds[one.name]) for one in view.features] if view else []


def _profile(rows: "DuckDBPyRelation", name: str, kind: str) -> FeatureProfile:
    column, number = quote(name), f"{quote(name)}::DOUBLE"
    missing = f"coalesce(1 - count({column}) / nullif(count(*), 0), 0)"
    if not NUMBER.fullmatch(kind):
        return FeatureProfile(name, rows.aggregate(missing).fetchall()[0][0], None, None, None)
    found = FeatureProfile(
        name, *rows.aggregate(f"{missing}, avg({number}), min({number}), max({number})").fetchall()[0]
    )
    if found.least is None or found.greatest is None:
        return found
    width = (found.greatest - found.least) / BINS or 1.0
    place = f"least(floor(({number} - {found.least!r}::DOUBLE) / {width!r}::DOUBLE), {BINS - 1})::INTEGER"
    counted = dict(rows.filter(f"{column} IS NOT NULL").aggregate(f"{place}, count(*)").fetchall())
    return found._replace(counts=tuple(counted.get(one, 0) for one in range(BINS)))
