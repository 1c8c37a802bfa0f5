"""Contract -> Dagster: the asset's spec, freshness policy, partitions and everything the UI shows of it."""

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg

from recsys_data.contracts.model import Column, Contract, Kind
from recsys_data.contracts.types import duckdb_type
from recsys_data.defs.markdown import table
from recsys_data.ingestion.first_day import first_partition_day
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import NAMESPACE

# Dagster looks at freshness every half minute and accepts no window below one.
LEAST_WINDOW = timedelta(minutes=2)
DAY = timedelta(days=1)


def daily_partitions(first_day: date) -> dg.DailyPartitionsDefinition:
    """One partition per UTC day of event time, the current day included."""
    return dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), timezone="UTC", end_offset=1)


def asset_spec(contract: Contract, settings: Settings, deps: Sequence[dg.AssetKey | dg.AssetDep]) -> dg.AssetSpec:
    """The asset of a dataset."""
    lineage = column_lineage(contract, [one for one in deps if isinstance(one, dg.AssetKey)])
    return dg.AssetSpec(
        key=dg.AssetKey(contract.name),
        deps=deps,
        description=f"{contract.purpose}\n\n{contract.grain}\n\n{contract.usage}",
        group_name=contract.stage,
        owners=[f"team:{contract.owner}"] if contract.owner else [],
        kinds={"iceberg", "parquet"},
        tags={"domain": contract.domain, **dict.fromkeys(contract.tags, "")},
        partitions_def=daily_partitions(first_partition_day(settings)),
        code_version=contract.version,
        freshness_policy=_freshness(contract),
        skippable=not contract.is_stream,
        metadata={
            "dagster/column_schema": column_schema(contract),
            "dagster/partition_expr": contract.event_time.name,
            "dagster/table_name": f"{NAMESPACE}.{contract.name}",
            "dagster/uri": f"{settings.warehouse_url}/{NAMESPACE}/{contract.name}",
            **({"dagster/column_lineage": lineage} if lineage.deps_by_column else {}),
            "contract": dg.MetadataValue.text(f"{contract.path.name} {contract.version}"),
            "row rules": dg.MetadataValue.md(
                table(
                    ["reason", "rule", "predicate"],
                    [[r.name, r.description, f"`{r.predicate}`"] for r in contract.rules],
                )
            ),
        },
    )


def _freshness(contract: Contract) -> dg.FreshnessPolicy | None:
    """By the age of the newest data; of snapshots, by the time at which the day's has to be there."""
    if contract.kind is Kind.REJECTED:
        # Rows are refused when there is reason to.
        return None
    if contract.schedule:
        hour, minute = contract.schedule.deadline.split(":")
        return dg.FreshnessPolicy.cron(f"{int(minute)} {int(hour)} * * *", DAY, contract.schedule.timezone)
    window = max(contract.latency, LEAST_WINDOW)
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window / 2)


def column_lineage(contract: Contract, deps: list[dg.AssetKey]) -> dg.TableColumnLineage:
    """Where columns come from: fields of the event, the snapshot whose history this is, or what features read."""
    if contract.kind is Kind.FEATURE_VIEW:
        return dg.TableColumnLineage(
            {
                column.name: [dg.TableColumnDep(dg.AssetKey(dataset), name) for dataset, name in column.reads]
                for column in contract.columns
                if column.reads
            }
        )
    (source,) = deps[:1] or [None]
    paths = {column.name: ".".join(column.source) for column in contract.columns if column.source}
    if contract.kind is Kind.HISTORY:
        paths = {column.name: column.name for column in contract.columns if not column.system}
    elif not contract.is_stream:
        # A snapshot has several sources, and which of them a value is from differs by row.
        paths = {}
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(source, path)] for name, path in paths.items()} if source else {}
    )


def column_schema(contract: Contract) -> dg.TableSchema:
    """The columns as the UI shows them; personal data is marked."""
    return dg.TableSchema(columns=[_column(column) for column in contract.columns])


def _column(column: Column) -> dg.TableColumn:
    return dg.TableColumn(
        name=column.name,
        type=duckdb_type(column.type),
        description=column.description,
        constraints=dg.TableColumnConstraints(
            nullable=not (column.required or column.key),
            unique=column.key,
            other=[f"one of {', '.join(column.enum)}"] if column.enum else [],
        ),
        tags=_marks(column),
    )


def _marks(column: Column) -> dict[str, str]:
    """What the UI shows beside a column: personal data, and what it may be used for."""
    marks = {"classification": column.classification} if column.classification else {}
    return marks | ({"permitted_use": ".".join(column.permitted_use)} if column.permitted_use else {})
