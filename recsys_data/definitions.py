"""The Dagster code location: merges the stages' definitions and the resources; decides nothing."""

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.defs.ingestion import dead_letters as replay
from recsys_data.defs.ingestion import snapshots
from recsys_data.defs.ingestion import streaming as ingestion
from recsys_data.defs.monitoring import alerts, instance
from recsys_data.defs.monitoring import checks as monitoring
from recsys_data.defs.resources import EventLogResource, LakeResource, SettingsResource
from recsys_data.defs.storage import maintenance as lake
from recsys_data.defs.storage.retention import retention
from recsys_data.settings import Settings

_settings = Settings.from_env()
_contracts = load_contracts(*_settings.contract_dirs)

defs = dg.Definitions.merge(
    ingestion.definitions(_contracts, _settings),
    replay.definitions(),
    snapshots.definitions(_contracts, _settings),
    lake.definitions(),
    monitoring.definitions(_contracts),
    instance.definitions(),
    alerts.definitions(),
    dg.Definitions(
        assets=[retention],
        resources={"event_log": EventLogResource(), "lake": LakeResource(), "settings": SettingsResource()},
        executor=dg.in_process_executor,
    ),
)
