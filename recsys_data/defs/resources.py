"""One Dagster resource per external system; each hands out the plain object that the stages work with.

The configuration is that of the settings when the definitions are loaded, so that the UI shows where data is. Secrets
are no part of it: they are read from the environment when a run starts.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec
from dagster_duckdb import DuckDBResource
from pydantic import Field

from recsys_data.contracts import load_contracts
from recsys_data.contracts.model import Contract
from recsys_data.contracts.rules import session
from recsys_data.contracts.servers import S3Access, S3Keys
from recsys_data.defs.run_liveness import run_executor
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.redaction import redacted_url
from recsys_data.settings import HAVE_LOGIN, HIDDEN, PREFIX, Settings, variable
from recsys_data.sources.locations import is_in_s3
from recsys_data.sql import session_threads
from recsys_data.storage.tables import Lake, open_lake

if TYPE_CHECKING:
    from dagster_aws.s3 import S3Resource
    from duckdb import DuckDBPyConnection


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
    s3: dg.ResourceDependency["S3Resource | None"] = None  # pyright: ignore[reportAssignmentType]

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        contracts = load_contracts(*map(Path, self.contracts))
        if self.s3:
            contracts = {name: reached(contract, self.s3) for name, contract in contracts.items()}
        return open_lake(self.settings, contracts)


def reached(contract: Contract, s3: "S3Resource") -> Contract:
    """The contract with what the resource knows put into its servers, as plain values."""
    access = S3Access(s3.region_name, s3.max_attempts, partial(_keys, s3))
    return replace(contract, servers=tuple(replace(server, s3=access) for server in contract.servers))


def _keys(s3: "S3Resource") -> S3Keys | None:
    """What boto3 finds: in the environment, a profile (of a role, too), a login of a web identity, the machine."""
    import boto3

    found = boto3.Session(
        s3.aws_access_key_id, s3.aws_secret_access_key, s3.aws_session_token, profile_name=s3.profile_name
    ).get_credentials()
    return S3Keys(*found.get_frozen_credentials()[:3]) if found else None


class SessionResource(DuckDBResource):
    """DuckDB sessions of checks and metadata: in UTC, and spilling to a private folder, as those of the stages."""

    database: str = Field(default=":memory:", description="In memory, because tables are read from the lake.")

    @contextmanager
    def get_connection(self) -> "Iterator[DuckDBPyConnection]":
        with session(parallel=True, **self.connection_config) as connection:
            yield connection


@dg.definitions
def resources() -> dg.Definitions:
    """The resources as the environment's settings configure them, and the executor of every run."""
    settings = Settings.from_env()
    hidden = {*HIDDEN, *HAVE_LOGIN}
    shown = {name: value for name, value in msgspec.to_builtins(settings).items() if name not in hidden}
    own = SettingsResource(values=shown | {"dir": str(settings.data_dir)})
    s3 = _s3_resource(load_contracts(*settings.contract_dirs))
    has_login = redacted_url(settings.event_log) != settings.event_log
    return dg.Definitions(
        resources={
            "settings": own,
            "event_log": EventLogResource(
                url=dg.EnvVar(f"{PREFIX}EVENT_LOG") if has_login else settings.event_log,
                settings=own,
            ),
            "lake": LakeResource(contracts=[*map(str, settings.contract_dirs)], settings=own, s3=s3),
            "duckdb": SessionResource(connection_config={"threads": settings.duckdb_threads or session_threads()}),
            **({"s3": s3} if s3 else {}),
        },
        executor=run_executor,
    )


def _s3_resource(contracts: Mapping[str, Contract]) -> "S3Resource | None":
    """Only where a dataset is read from S3, because the import brings 700 modules into every run."""
    servers = [server for contract in contracts.values() for server in contract.servers if is_in_s3(server)]
    if not servers:
        return None
    from dagster_aws.s3 import S3Resource

    endpoints = {server.endpoint for server in servers}
    return S3Resource(
        region_name=variable("AWS_REGION") or variable("AWS_DEFAULT_REGION"),
        endpoint_url=redacted_url(endpoints.pop() or "") or None if len(endpoints) == 1 else None,
    )
