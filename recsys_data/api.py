"""The lake in Python, for notebooks and scripts: datasets as DuckDB relations, read only.

    import recsys_data

    lake = recsys_data.connect()
    lake.sql("SELECT type, count(*) AS n FROM interactions GROUP BY ALL").df()

Whatever is read is whole commits: those of the moment of the call, or of an earlier moment.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_data.contracts import load_contracts
from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.sql import open_session
from recsys_data.storage.guard.read_only import answered, planned
from recsys_data.storage.query import open_views
from recsys_data.storage.tables import open_lake

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

# A datetime is a date too.
Moment = str | int | date


class Connection:
    """The lake of a deployment, opened by `recsys_data.connect`."""

    def __init__(self, settings: Settings) -> None:
        self._lake = open_lake(settings, load_contracts(*settings.contract_dirs))

    @property
    def datasets(self) -> list[str]:
        """The names of all datasets, also of those that have no rows yet."""
        return sorted(self._lake.contracts)

    def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *, as_of: Moment | None = None
    ) -> "DuckDBPyRelation":
        """The result of a query, held in memory: `.df()` is a pandas DataFrame, `.to_arrow_table()` an Arrow table.

        Guarded like `recsys-data sql`: a query can read datasets and compute, and nothing else.

        Args:
            query: one statement of DuckDB's SQL; each dataset is a view of that name.
            params: values of `?` or `$name` in the query.
            as_of: as for `table`.

        Raises:
            UserError: the query may do more than read, or there is no such moment.
            duckdb.Error: the query cannot be parsed or computed.
        """
        import pyarrow as pa

        with answered(self._lake, query, _text(as_of), params) as result:
            rows = pa.Table.from_batches(result.batches, result.schema)
        return open_session().from_arrow(rows)

    def features(
        self,
        spine: "DuckDBPyRelation | pd.DataFrame | pa.Table | str",
        views: Sequence[str],
        *,
        timestamp: str = "timestamp",
        known: str = "commit",
        purpose: str = "personalisation",
    ) -> "DuckDBPyRelation":
        """The rows of a spine, in their order, with features as they were known at the moment of each row.

        Args:
            spine: keys of all views, a moment (UTC where it has no zone), and anything else: a DataFrame, an Arrow
                table, a relation, or a query of the lake's datasets. Ids are text.
            views: names of feature views; their features come back as `VIEW__FEATURE`, and `VIEW__known` says whether
                anything was known of the entity.
            timestamp: column of the moment.
            known: `commit`: an event counts since it was stored; `event_time`: since it happened, for imported history.
            purpose: what the features are for; it must be permitted for each column that they are computed from.

        Returns:
            A relation over tables of a session of its own, which spill to disk.

        Raises:
            UserError: there is no such view, the spine lacks a column, or the purpose is not permitted.
        """
        import pandas as pd
        import pyarrow as pa

        from recsys_data.features.lake import join_features, open_features

        given = self.sql(spine) if isinstance(spine, str) else spine
        connection = open_features()
        if isinstance(given, pd.DataFrame):
            rows = connection.from_df(given)
        else:
            rows = connection.from_arrow(given if isinstance(given, pa.Table) else given.to_arrow_table())
        return join_features(self._lake, connection, rows, views, purpose=purpose, known=known, timestamp=timestamp)

    def table(self, name: str, *, as_of: Moment | None = None) -> "DuckDBPyRelation":
        """All rows of a dataset, read when they are needed: `.filter()` and `.select()` skip files and columns.

        Args:
            name: of a dataset.
            as_of: show it as it was stored at a time (a datetime, or text such as `2026-11-25`), or when the snapshot
                of that id was committed. Times are UTC unless they carry an offset.

        Raises:
            UserError: there is no such dataset or moment.
        """
        if name not in self._lake.contracts:
            raise UserError(f"Unknown dataset {name!r}. Choose one of {', '.join(self.datasets)}.")
        views = planned(self._lake, _text(as_of), [name])
        return open_views(views, python_enable_replacements=False).table(name)


def _text(moment: Moment | None) -> str | None:
    return moment.isoformat() if isinstance(moment, date) else None if moment is None else str(moment)
