"""One Dagster resource per external system; each hands out the plain object that the stages work with."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.defs.run_liveness import marked
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.logs import bound, configure
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake, open_lake


class SettingsResource(dg.ConfigurableResource[Settings]):
    """The settings, read from the environment when a run starts."""

    def create_resource(self, context: dg.InitResourceContext) -> Settings:
        return Settings.from_env()


class EventLogResource(dg.ConfigurableResource[EventLog]):
    """The event log that the settings name."""

    def create_resource(self, context: dg.InitResourceContext) -> EventLog:
        from recsys_data.ingestion.streaming.log.open import open_log

        return open_log(Settings.from_env())


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake of the settings, with a table for each contract. A run that uses it is marked as alive meanwhile."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Lake]:
        run, settings = context.run, Settings.from_env()
        if not run:
            yield self.create_resource(context)
            return
        configure(settings, "recsys_data")
        with marked(settings, run.run_id), bound(run_id=run.run_id):
            yield self.create_resource(context)

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        settings = Settings.from_env()
        return open_lake(settings, load_contracts(*settings.contract_dirs))


@dg.definitions
def resources() -> dg.Definitions:
    """The resources, and the executor: a run is one process."""
    return dg.Definitions(
        resources={"event_log": EventLogResource(), "lake": LakeResource(), "settings": SettingsResource()},
        executor=dg.in_process_executor,
    )
