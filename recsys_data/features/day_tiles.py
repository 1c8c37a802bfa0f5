"""The tiles of one day of a view: computed by DuckDB, or by Spark, whose rows are then as good as DuckDB's own.

Both run the same statement; Spark reads it as `storage/spark/dialect.py` translates it, from the tables of the lake
instead of from their files.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from recsys_data.contracts.features.check import Resolved
from recsys_data.contracts.features.datasets import states_needed
from recsys_data.contracts.features.view import FeatureView
from recsys_data.days import MICROSECONDS_PER_DAY, date_of
from recsys_data.features.lake import Days, FeatureSources
from recsys_data.features.tiles import tiles
from recsys_data.settings import DUCKDB
from recsys_data.sql import quote
from recsys_data.storage.query import duckdb_type
from recsys_data.storage.tables import event_time

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.table import Table

    from recsys_data.settings import Settings

SPARK_ROWS = "#tiles of Spark"


def day_tiles(
    connection: "duckdb.DuckDBPyConnection",
    features: FeatureSources,
    view: FeatureView,
    stream: str,
    resolved: Resolved,
    table: "Table",
    day: int,
) -> str:
    """SQL of the tiles of a day (since 1970), for this session.

    Args:
        connection: of `open_features`.
        features: sources of the lake, whose settings name the engine.
        view: of which the tiles are.
        stream: name of its source.
        resolved: types of the view.
        table: of the tiles.
        day: of the events.

    Raises:
        UserError, Transient: Spark is asked for, and cannot be used.
    """
    settings = features.lake.settings
    if settings is None or settings.engine == DUCKDB:
        return _tiles(features, view, stream, resolved, day)
    structs = {one.name: one.struct for one in states_needed(view, features.sources[stream], resolved) if one.struct}
    statement = _tiles(_SparkSources(features.lake), view, stream, resolved, day)
    connection.register(SPARK_ROWS, _by_spark(settings, statement, structs))
    kinds = {field.name: (quote(field.name), duckdb_type(field.field_type)) for field in table.schema().fields}
    kinds |= {name: (f"CAST({quote(name)} AS JSON)", kind) for name, kind in structs.items()}
    columns = ", ".join(f"CAST({given} AS {kind}) AS {quote(name)}" for name, (given, kind) in kinds.items())
    return f"SELECT {columns} FROM {quote(SPARK_ROWS)}"


def _tiles(features: FeatureSources, view: FeatureView, stream: str, resolved: Resolved, day: int) -> str:
    source = features.sources[stream]
    is_of = f"epoch_us({quote(source.time or '')}) // {MICROSECONDS_PER_DAY} = {day}"
    rows = f"SELECT * FROM ({features.rows(stream, {day}.__contains__)}) WHERE {is_of}"
    return tiles(view, stream, source, resolved, rows)


def _by_spark(settings: "Settings", statement: str, structs: Iterable[str]) -> object:
    """The rows (Arrow) of a statement of DuckDB's; these columns as JSON, because Spark hands out no absent structs."""
    from recsys_data.storage.spark.dialect import spark_sql
    from recsys_data.storage.spark.session import explained, spark_session

    texts = ", ".join(f"to_json({quote(name)}) AS {quote(name)}" for name in structs)
    asked = f"SELECT * REPLACE ({texts}) FROM ({statement})" if texts else statement
    session = spark_session(settings)
    with explained(settings):
        return session.sql(spark_sql(asked)).toArrow()


class _SparkSources(FeatureSources):
    """The same sources, as tables that Spark reads."""

    def _stored(self, dataset: str, keep: Days | None) -> str:
        from recsys_data.storage.iceberg.catalog import NAME

        table = self.lake.table(dataset)
        rows = f"SELECT * FROM {NAME}.{'.'.join(table.name())}"
        if keep is None:
            return rows
        time = quote(event_time(table))
        # Bounds that Iceberg compares with its partitions.
        days = {task.file.partition[0] for task in table.scan().plan_files()}
        bounds = (
            f"({time} >= TIMESTAMPTZ '{date_of(day)} 00:00:00+00:00' "
            f"AND {time} < TIMESTAMPTZ '{date_of(day + 1)} 00:00:00+00:00')"
            for day in sorted(days)
            if keep(day)
        )
        return f"{rows} WHERE {' OR '.join(bounds) or 'false'}"
