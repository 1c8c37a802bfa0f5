"""Settings: every field by its variable, and every mistake explained."""

from datetime import date
from pathlib import Path

import pytest

from recsys_data.errors import UserError
from recsys_data.settings import Settings


def test_nothing_needs_to_be_set() -> None:
    settings = Settings.from_env({"HOME": "/root", "DATABASE_URL": "x"})
    assert settings == Settings()
    assert settings.data_dir == Path("data").absolute()
    assert settings.contract_dirs == ()
    assert settings.keys == ()


def test_each_field_is_set_by_its_variable() -> None:
    given = {
        "RECSYS_DATA_DIR": "~/state",
        "RECSYS_DATA_EVENT_LOG": "embedded",
        "RECSYS_DATA_ONLINE_STORE": "redis://store/1",
        "RECSYS_DATA_WAREHOUSE": "s3://bucket/lake",
        "RECSYS_DATA_CATALOG": "postgresql://db/lake",
        "RECSYS_DATA_ENGINE": "spark://spark.example.org:7077",
        "RECSYS_DATA_SPARK_JARS": "/opt/jars",
        "RECSYS_DATA_LOG_PARTITIONS": "8",
        "RECSYS_DATA_CONSUME_SHARE": "2/3",
        "RECSYS_DATA_SEGMENT_BYTES": "1000",
        "RECSYS_DATA_LOG_RETENTION_HOURS": "0",
        "RECSYS_DATA_LANDING_REST_SECONDS": "0.5",
        "RECSYS_DATA_FIRST_DAY": "2020-02-29",
        "RECSYS_DATA_MAX_EVENT_BYTES": "1000",
        "RECSYS_DATA_MAX_REQUEST_BYTES": "2000",
        "RECSYS_DATA_WRITE_KEYS": "one, two,,",
        "RECSYS_DATA_SIGNING_SECRETS": "one:s/e+cret,two:other",
        "RECSYS_DATA_UI_HOSTS": "ui.example, localhost:4000",
        "RECSYS_DATA_CONTRACTS": "~/contracts",
        "RECSYS_DATA_DRAIN_SECONDS": "60",
        "RECSYS_DATA_IDLE_SECONDS": "5",
        "RECSYS_DATA_ALERT_URL": "https://hooks.example.org/services/secret",
        "RECSYS_DATA_ALERT_FORMAT": "slack",
        "RECSYS_DATA_DUCKDB_THREADS": "3",
        "RECSYS_DATA_HISTORY_MEMORY_MB": "200",
        "RECSYS_DATA_LOG_FORMAT": "json",
        "RECSYS_DATA_LOG_LEVEL": "debug",
    }
    settings = Settings.from_env(given)
    assert {f"RECSYS_DATA_{name.upper()}" for name in Settings.__struct_fields__} <= given.keys()
    assert (settings.log_partitions, settings.log_retention_hours) == (8, 0)
    assert settings.first_day == date(2020, 2, 29)
    assert (settings.data_dir, settings.lake_dir) == (Path.home() / "state", Path.home() / "state" / "lake")
    assert settings.contract_dirs == (Path.home() / "contracts",)
    assert settings.keys == ("one", "two")
    assert settings.secrets_of_keys == {"one": "s/e+cret", "two": "other"}
    assert settings.further_ui_hosts == ("ui.example", "localhost:4000")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LOG_PARTITIONS", "0", r"Setting RECSYS_DATA_LOG_PARTITIONS is '0': Expected `int` >= 1\. Change or unset it"),
        ("LOG_PARTITIONS", "two", r"Setting RECSYS_DATA_LOG_PARTITIONS is 'two': Expected `int`"),
        ("LOG_PARTITIONS", "2.5", r"Setting RECSYS_DATA_LOG_PARTITIONS is '2.5': Expected `int`"),
        ("SEGMENT_BYTES", "-1", r"Setting RECSYS_DATA_SEGMENT_BYTES is '-1': Expected `int` >= 1"),
        ("LOG_RETENTION_HOURS", "-1", r"Setting RECSYS_DATA_LOG_RETENTION_HOURS is '-1': Expected `int` >= 0"),
        ("FIRST_DAY", "2026-02-30", r"Setting RECSYS_DATA_FIRST_DAY is '2026-02-30': Invalid RFC3339 encoded date"),
        ("FIRST_DAY", "yesterday", r"Setting RECSYS_DATA_FIRST_DAY is 'yesterday'"),
        ("MAX_EVENT_BYTES", "", r"Setting RECSYS_DATA_MAX_EVENT_BYTES is '': Expected `int`"),
        ("MAX_REQUEST_BYTES", "1MB", r"Setting RECSYS_DATA_MAX_REQUEST_BYTES is '1MB'"),
        ("DRAIN_SECONDS", "0", r"Setting RECSYS_DATA_DRAIN_SECONDS is '0': Expected `int` >= 1"),
        ("IDLE_SECONDS", "a while", r"Setting RECSYS_DATA_IDLE_SECONDS is 'a while': Expected `int`"),
        ("ENGINE", "polars", r"Setting RECSYS_DATA_ENGINE is 'polars'"),
        ("ENGINE", "spark:7077", r"Setting RECSYS_DATA_ENGINE is 'spark:7077'"),
        ("DIR", "", r"Setting RECSYS_DATA_DIR is '': Expected `str` of length >= 1"),
    ],
)
def test_a_value_of_the_wrong_form_is_explained(name: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings.from_env({f"RECSYS_DATA_{name}": value})


@pytest.mark.parametrize("name", ["RECSYS_DATA_LOG_PARTITION", "RECSYS_DATA_", "RECSYS_DATA_data_dir"])
def test_a_name_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UserError, match=r"Unknown setting RECSYS_DATA_\w*\. Known settings: RECSYS_DATA_DIR, .*"):
        Settings.from_env({name: "1"})


def test_keys_are_printed_nowhere() -> None:
    settings = Settings(write_keys="swordfish,tuna")
    assert "swordfish" not in f"{settings!r} {settings} {settings.keys!r} {settings.keys}"
    assert "<2 hidden>" in repr(settings)


def test_the_password_of_a_url_is_not_printed() -> None:
    settings = Settings(online_store="redis://:swordfish@store/1")
    assert "swordfish" not in f"{settings!r} {settings}"
    assert "redis://:***@store/1" in repr(settings)


def test_the_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_LOG_PARTITIONS", "3")
    assert Settings.from_env().log_partitions == 3
