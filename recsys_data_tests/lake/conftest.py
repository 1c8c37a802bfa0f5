"""Each test of this folder runs on every place that a lake can have."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from recsys_data.contracts import Contract
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import NAMESPACE, open_catalog
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.ingestion.conftest import contracts, make_platform, sessions
from recsys_data_tests.storage.conftest import OpenLake, notes
from recsys_data_tests.support.lakes import BUCKET, REGION, Place, aws, database, objects
from recsys_data_tests.support.rest.server import rest_catalog

__all__ = ["contracts", "make_platform", "notes", "sessions"]

PLACES = ["local", "s3-postgresql", "s3-glue", "s3-rest"]


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with aws() as url:
        yield url


@pytest.fixture(scope="session")
def rest(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rest_catalog(tmp_path_factory.mktemp("rest"), endpoint, f"s3://{BUCKET}/rest") as url:
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
    if request.param == "s3-postgresql":
        with database() as catalog:
            yield Place(f"s3://{prefix}", catalog)
        return
    shared = request.getfixturevalue("rest") if request.param == "s3-rest" else f"glue://{REGION}"
    found = Place(f"s3://{prefix}", shared)
    yield found
    catalog = open_catalog(Settings(**found._asdict()))
    for table in catalog.list_tables(NAMESPACE):
        catalog.drop_table(table)


@pytest.fixture
def settings(tmp_path: Path, place: Place) -> Settings:
    return Settings(dir=str(tmp_path / "data"), **place._asdict())


@pytest.fixture
def open_notes(notes: Contract, settings: Settings) -> OpenLake:
    """Opens one lake, each time as another process would, with these contracts (`notes` alone by default)."""

    def open_(contracts: Mapping[str, Contract] | None = None) -> Lake:
        return open_lake(settings, contracts or {"notes": notes})

    return open_
