"""One Dagster resource per external system; each hands out the plain object that the stages work with.

The configuration is that of the settings when the definitions are loaded, so that the UI shows where data is. Secrets
are no part of it: they are read from the environment when a run starts.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
from pydantic import Field

from recsys_data.contracts import load_contracts
from recsys_data.defs.run_liveness import run_executor
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.redaction import redacted_url
from recsys_data.settings import HIDDEN, PREFIX, Settings
from recsys_data.storage.tables import Lake, open_lake


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The settings of the deployment."""

    values: dict[str, Any] = Field(
        default={}, description="Settings by name, without secrets; others as the environment."
    )

    def create_resource(self, context: dg.InitResourceContext) -> Settings:
        return msgspec.convert(msgspec.to_builtins(Settings.from_env()) | self.values, Settings, strict=False)


class EventLogResource(dg.ConfigurableResource[EventLog]):
    """The event log, from which the streams are read."""

    url: str = Field(description="`embedded`, or the URL of a broker.")
    settings: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> EventLog:
        from recsys_data.ingestion.streaming.log.open import open_log

        return open_log(msgspec.structs.replace(self.settings, event_log=self.url))


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake, with a table for each contract."""

    contracts: list[str] = Field(description="Folders of contracts beside the built-in ones.")
    settings: dg.ResourceDependency[Settings]

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        return open_lake(self.settings, load_contracts(*map(Path, self.contracts)))


@dg.definitions
def resources() -> dg.Definitions:
    """The resources as the environment's settings configure them, and the executor of every run."""
    settings = Settings.from_env()
    shown = {name: value for name, value in msgspec.to_builtins(settings).items() if name not in (*HIDDEN, "event_log")}
    own = SettingsResource(values=shown | {"dir": str(settings.data_dir)})
    has_login = redacted_url(settings.event_log) != settings.event_log
    return dg.Definitions(
        resources={
            "settings": own,
            "event_log": EventLogResource(
                url=dg.EnvVar(f"{PREFIX}EVENT_LOG") if has_login else settings.event_log,
                settings=own,
            ),
            "lake": LakeResource(contracts=[*map(str, settings.contract_dirs)], settings=own),
        },
        executor=run_executor,
    )
