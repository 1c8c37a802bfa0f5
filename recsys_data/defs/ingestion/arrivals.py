"""The arrival sensor: watches the sources of snapshots and takes the days that have arrived.

Data flow: day folders -> `landed_days_sensor` -> one run of `take_NAME` for all days that wait.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.contracts.model import history_name, rejected_name
from recsys_data.contracts.servers import Server
from recsys_data.errors import RecsysDataError
from recsys_data.ingestion.first_day import remember
from recsys_data.settings import Settings
from recsys_data.sources.extract import fingerprint
from recsys_data.sources.source import is_live
from recsys_data.storage.tables import Lake

FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
INTERVAL_SECONDS = 20
# The newest days whose files are looked at each time.
WATCHED_DAYS = 100


def landed_days_sensor(contracts: Sequence[Contract], first_day: date) -> dg.SensorDefinition:
    """Watches the sources of these datasets.

    Args:
        contracts: of the datasets.
        first_day: the first day that has a partition. Older ones wait until definitions are loaded that have it.
    """

    @dg.sensor(
        name="landed_days_sensor",
        target=dg.AssetSelection.assets(*(name for contract in contracts for name in _assets(contract))),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the snapshots of past days whose files have arrived and that are not stored yet.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.SensorResult:
        from recsys_data.ingestion.batch.partitions import arrived_days

        seen = {name: days for name, days in json.loads(context.cursor or "{}").items() if isinstance(days, dict)}
        waiting: dict[str, dict[str, str]] = {}
        requests, troubles, observed = [], [], []
        for contract in [lake.contracts[contract.name] for contract in contracts]:
            try:
                arrived = arrived_days(lake, contract, settings)
                if arrived and arrived[0] < first_day:
                    remember(settings, arrived[0])
                    troubles.append(
                        f"{contract.name}: days from {arrived[0]} on have no partition, because these begin on "
                        f"{first_day}. `recsys-data up` adds them unless RECSYS_DATA_FIRST_DAY is set; without `up`, "
                        "reload the code location"
                    )
                days = _fingerprints(contract, [day for day in arrived if day >= first_day], settings)
            except RecsysDataError as error:
                troubles.append(f"{contract.name}: {error}")
                continue
            before, waiting[contract.name] = seen.get(contract.name) or {}, days
            if [*before] != [*days]:
                observed += _observations(contract, [*days])
            # Files of the same sizes and times twice, so that what is being copied has some time to become whole.
            rested = [date.fromisoformat(day) for day in days if dict(before).get(day) == days[day]]
            if rested and [*before] == [*days]:
                requests.append(_request(contract, rested))
        skip = None if requests else "; ".join(troubles) or "No new day has arrived"
        return dg.SensorResult(requests, skip_reason=skip, cursor=json.dumps(waiting), asset_events=observed)

    return sensor


def source_key(contract: Contract, server: Server) -> dg.AssetKey:
    """The external asset that stands for a server of a dataset."""
    return dg.AssetKey(["sources", contract.name, server.name])


def _fingerprints(contract: Contract, days: Sequence[date], settings: Settings) -> dict[str, str]:
    """Days that have files of every server, with what stays the same while nobody writes them.

    Raises:
        UserError: a location cannot be read.
        Transient: S3 does not answer.
    """
    found: dict[str, str] = {}
    servers = [server for server in contract.servers if not is_live(server)]
    old = set(days[:-WATCHED_DAYS])
    for day in days:
        # Listing every day of a long history takes long, and whoever takes one looks at it again.
        states = [] if day in old else [fingerprint(server, settings.data_dir, day) for server in servers]
        if None not in states:
            found[day.isoformat()] = " ".join(map(str, states))
    return found


def _observations(contract: Contract, waiting: Sequence[str]) -> list[dg.AssetObservation]:
    metadata = {"days waiting": len(waiting), "newest day waiting": waiting[-1] if waiting else "none"}
    return [dg.AssetObservation(source_key(contract, server), metadata=metadata) for server in contract.servers]


def _request(contract: Contract, days: Sequence[date]) -> dg.RunRequest:
    """One run for all of them. The same days are requested once: a failure needs somebody to look at it."""
    keys = [day.isoformat() for day in days]
    run_key = f"{contract.name}:{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}"
    selection = [dg.AssetKey(name) for name in _assets(contract)]
    if len(keys) == 1:
        return dg.RunRequest(run_key, partition_key=keys[0], asset_selection=selection)
    return dg.RunRequest(run_key, tags={FIRST: keys[0], LAST: keys[-1]}, asset_selection=selection)


def _assets(contract: Contract) -> list[str]:
    return [contract.name, rejected_name(contract.name), history_name(contract.name)]
