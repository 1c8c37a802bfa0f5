"""The sensor that keeps Dagster's partitions equal to the days of the lake, whoever stored them."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg

from recsys_data.contracts.model import Kind
from recsys_data.days import date_of, day_key, day_number
from recsys_data.ingestion.batch.history.state import read_state
from recsys_data.ingestion.first_day import remember
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.manifest_stats import days
from recsys_data.storage.tables import Lake

# A tick may take a minute; an event takes about 15 ms.
EVENTS_PER_TICK = 400


def _days_of(lake: Lake, name: str) -> dict[int, dict[str, Any]]:
    """The days (since 1970) that a dataset holds, or that its history is made of, with what is known of them."""
    table = lake.table(name)
    if lake.contracts[name].kind is Kind.HISTORY:
        return {day_number(taken.day): {} for taken in read_state(table).days}
    return {day: {"dagster/partition_row_count": stats.rows} for day, stats in days(table).items()}


def partitions_sensor(names: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="lake_partitions_sensor",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports days that were stored outside Dagster, e.g. by `recsys-data ingest`.",
    )
    def lake_partitions_sensor(
        context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult:
        seen = json.loads(context.cursor or "{}")
        reported: list[dg.AssetMaterialization] = []
        for name in names:
            if not lake.exists(name):
                continue
            table = lake.table(name)
            snapshot = str(table.metadata.current_snapshot_id)
            if seen.get(name) == snapshot:
                continue
            known = context.instance.get_materialized_partitions(dg.AssetKey(name))
            stored = _days_of(lake, name)
            if stored:
                remember(settings, date_of(min(stored)))
            missing = [day for day in sorted(stored, reverse=True) if day_key(day) not in known]
            room = EVENTS_PER_TICK - len(reported)
            reported += [
                dg.AssetMaterialization(name, partition=day_key(day), metadata=stored[day]) for day in missing[:room]
            ]
            if len(missing) <= room:
                seen[name] = snapshot
        skip = None if reported else "Dagster knows every day of the lake"
        return dg.SensorResult(skip_reason=skip, cursor=json.dumps(seen), asset_events=reported)

    return lake_partitions_sensor
