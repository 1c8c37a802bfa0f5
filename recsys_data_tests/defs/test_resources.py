"""The resources: what the UI shows of them, and what assets get."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster_duckdb import DuckDBResource

from recsys_data.contracts.servers import Server
from recsys_data.defs.resources import resources
from recsys_data.ingestion.first_day import remember
from recsys_data.settings import Settings
from recsys_data.sources.locations import open_files
from recsys_data.storage.tables import Lake
from recsys_data_tests.support.contract_files import load
from recsys_data_tests.support.s3 import s3_endpoint, shop_bucket
from recsys_data_tests.support.snapshot_contracts import CITY, STORE_ID, stores


@pytest.fixture
def bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECSYS_DATA_DUCKDB_THREADS", "2")
    return resources().resources


def test_sessions_of_assets_have_the_limits_of_the_settings(bound) -> None:
    @dg.asset
    def made(duckdb: DuckDBResource) -> dict[str, object]:
        with duckdb.get_connection() as connection:
            names = ("threads", "TimeZone", "temp_directory")
            found = {name: connection.execute("SELECT current_setting(?)", [name]).fetchall()[0][0] for name in names}
            # What expressions of contracts may use is there.
            connection.execute("SELECT local_time(now(), 'Europe/Rome'), getvariable('first_day')")
            return found

    found = dg.materialize([made], resources=bound).output_for_node("made")
    assert (found["threads"], found["TimeZone"]) == (2, "UTC")
    assert "recsys-data-" in str(found["temp_directory"])


def test_the_ui_shows_where_data_is_and_how_it_is_read(bound) -> None:
    assert bound["duckdb"].connection_config == {"threads": 2}
    assert bound["event_log"].url == "embedded"


def in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, **server: str) -> None:
    """The settings of a platform with a dataset that is read from S3."""
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(tmp_path / "contracts"))
    source = {"server": "pim", "type": "s3", "location": location, "format": "csv", **server}
    remember(Settings.from_env(), date(2026, 1, 1))
    load(tmp_path / "contracts", stores(STORE_ID, CITY, servers=[source]))


def test_without_a_location_in_s3_there_is_no_resource_of_it(bound) -> None:
    assert "s3" not in bound


@pytest.mark.parametrize("location", ["s3://shop/{day}/*", "${EXPORTS}/{day}/*"])
def test_a_dataset_in_s3_is_read_with_what_the_resource_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    (tmp_path / "credentials").write_text(
        "[exports]\naws_access_key_id = of-profile\naws_secret_access_key = hush\naws_session_token = for-a-while\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "exports")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    monkeypatch.setenv("EXPORTS", "s3://shop")
    in_s3(tmp_path, monkeypatch, location, endpointUrl="https://minio.internal:9000")
    bound = resources().resources
    assert (bound["s3"].region_name, bound["s3"].endpoint_url) == ("eu-south-1", "https://minio.internal:9000")
    # What the UI shows holds no key.
    assert "hush" not in str(bound["s3"]) and "of-profile" not in str(bound["s3"])

    servers: list[Server] = []

    @dg.asset
    def read(lake: dg.ResourceParam[Lake]) -> None:
        servers.extend(lake.contracts["stores"].servers)

    assert dg.materialize([read], resources=bound).success
    (found,) = servers
    options = open_files(found, "s3://shop/2026-01-01/*")[0].__reduce__()[1][0]
    assert (options["access_key"], options["secret_key"], options["session_token"]) == (
        "of-profile",
        "hush",
        "for-a-while",
    )
    assert (options["region"], options["endpoint_override"]) == ("eu-south-1", "minio.internal:9000")
    assert "hush" not in repr(found)


@pytest.mark.integration
def test_a_run_takes_a_snapshot_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys_data.definitions import defs as code_location

    with s3_endpoint() as url:
        shop_bucket(url)("2026-01-01/stores.csv", b"store_id,city\ns1,Rome\n")
        in_s3(tmp_path, monkeypatch, "s3://shop/exports/{day}/*", endpointUrl=url)
        defs = code_location()
        assert defs.get_repository_def().get_top_level_resources()["s3"]
        with dg.DagsterInstance.ephemeral() as instance:
            job = defs.resolve_job_def("take_stores")
            assert job.execute_in_process(instance=instance, partition_key="2026-01-01", raise_on_error=False)
            (stored,) = instance.fetch_materializations(dg.AssetKey("stores"), limit=1).records
    assert stored.asset_materialization.metadata["dagster/partition_row_count"].value == 1
