"""Each test of this folder runs on every place that a lake can have."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from recsys_data.contracts import Contract
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.ingestion.conftest import contracts, make_platform, sessions
from recsys_data_tests.storage.conftest import OpenLake, notes
from recsys_data_tests.support.lakes import BUCKET, Place, aws, database, objects

__all__ = ["contracts", "make_platform", "notes", "sessions"]

PLACES = ["local", "s3-postgresql", "s3-glue"]


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with aws() as url:
        yield url


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where the lake of a test is; empty."""
    if request.param == "local":
        yield Place()
        return
    url = request.getfixturevalue("endpoint")
    prefix = f"{BUCKET}/{uuid.uuid4().hex}"
    objects(url).create_dir(BUCKET)
    if request.param == "s3-glue":
        import boto3

        yield Place(f"s3://{prefix}", "glue://eu-west-1")
        glue = boto3.client("glue")
        for table in glue.get_tables(DatabaseName="recsys")["TableList"]:
            glue.delete_table(DatabaseName="recsys", Name=table["Name"])
        glue.delete_database(Name="recsys")
        return
    with database() as catalog:
        yield Place(f"s3://{prefix}", catalog)


@pytest.fixture
def settings(tmp_path: Path, place: Place) -> Settings:
    return Settings(dir=str(tmp_path / "data"), **place._asdict())


@pytest.fixture
def open_notes(notes: Contract, settings: Settings) -> OpenLake:
    """Opens one lake, each time as another process would, with these contracts (`notes` alone by default)."""

    def open_(contracts: Mapping[str, Contract] | None = None) -> Lake:
        return open_lake(settings, contracts or {"notes": notes})

    return open_
