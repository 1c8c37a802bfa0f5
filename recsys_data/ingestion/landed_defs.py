"""The sensor that takes snapshots of days whose state has landed, without waiting for the schedule.

Data flow: day folders -> `landed_days_sensor` -> one run of `take_NAME` for all days that wait.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.errors import RecsysDataError
from recsys_data.ingestion.due import pending_days
from recsys_data.lake.tables import Lake
from recsys_data.settings import Settings

FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
INTERVAL_SECONDS = 20


def landed_days_sensor(contracts: Sequence[Contract]) -> dg.SensorDefinition:
    """Watches the sources of these datasets."""

    @dg.sensor(
        name="landed_days_sensor",
        target=dg.AssetSelection.assets(*(name for contract in contracts for name in _assets(contract))),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the snapshots of days that are over, whose state is there and that nobody has taken.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult:
        seen = json.loads(context.cursor or "{}")
        waiting: dict[str, list[str]] = {}
        requests, troubles = [], []
        for contract in contracts:
            try:
                days = pending_days(lake, contract, settings)
            except RecsysDataError as error:
                troubles.append(f"{contract.name}: {error}")
                continue
            waiting[contract.name] = [day.isoformat() for day in days]
            # Seen twice in the same way, so that what is being copied has some time to become whole.
            if days and seen.get(contract.name) == waiting[contract.name]:
                requests.append(_request(contract, days))
        skip = None if requests else "; ".join(troubles) or "No day waits to be taken"
        return dg.SensorResult(requests, skip_reason=skip, cursor=json.dumps(waiting))

    return sensor


def _request(contract: Contract, days: Sequence[date]) -> dg.RunRequest:
    """One run for all of them. The same days are asked for once: what fails is looked after by somebody."""
    keys = [day.isoformat() for day in days]
    run_key = f"{contract.name}:{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}"
    selection = [dg.AssetKey(name) for name in _assets(contract)]
    if len(keys) == 1:
        return dg.RunRequest(run_key, partition_key=keys[0], asset_selection=selection)
    return dg.RunRequest(run_key, tags={FIRST: keys[0], LAST: keys[-1]}, asset_selection=selection)


def _assets(contract: Contract) -> list[str]:
    return [contract.name, f"{contract.name}_rejected", f"{contract.name}_history"]
