"""The Dagster code location: merges the stages' definitions and the resources; decides nothing."""

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.ingestion import defs as ingestion
from recsys_data.ingestion import replay_defs as replay
from recsys_data.ingestion import snapshot_defs as snapshots
from recsys_data.ingestion.retention_defs import retention
from recsys_data.lake import defs as lake
from recsys_data.monitoring import alert_defs as alerts
from recsys_data.monitoring import defs as monitoring
from recsys_data.monitoring import instance_defs as instance
from recsys_data.resources import EventLogResource, LakeResource, SettingsResource
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
