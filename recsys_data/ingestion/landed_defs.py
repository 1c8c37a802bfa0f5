"""The sensor that watches the sources of snapshots: it tells of days that wait, and takes those that have landed.

Data flow: day folders -> `landed_days_sensor` -> one run of `take_NAME` for all days that wait.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.contracts.batch import Server
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
        requests, troubles, observed = [], [], []
        for contract in contracts:
            try:
                days = pending_days(lake, contract, settings)
            except RecsysDataError as error:
                troubles.append(f"{contract.name}: {error}")
                continue
            waiting[contract.name] = [day.isoformat() for day in days]
            if seen.get(contract.name) != waiting[contract.name]:
                observed += _observations(contract, waiting[contract.name])
            # Seen twice in the same way, so that what is being copied has some time to become whole.
            if days and seen.get(contract.name) == waiting[contract.name]:
                requests.append(_request(contract, days))
        skip = None if requests else "; ".join(troubles) or "No day waits to be taken"
        return dg.SensorResult(requests, skip_reason=skip, cursor=json.dumps(waiting), asset_events=observed)

    return sensor


def source_key(contract: Contract, server: Server) -> dg.AssetKey:
    """The external asset that stands for a server of a dataset."""
    return dg.AssetKey(["sources", contract.name, server.name])


def _observations(contract: Contract, waiting: Sequence[str]) -> list[dg.AssetObservation]:
    metadata = {"days waiting": len(waiting), "newest day waiting": waiting[-1] if waiting else "none"}
    return [dg.AssetObservation(source_key(contract, server), metadata=metadata) for server in contract.servers]


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
