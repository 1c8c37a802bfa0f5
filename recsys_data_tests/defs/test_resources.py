"""The resources: what the UI shows of them, and what assets get."""

from pathlib import Path

import dagster as dg
import pytest
from dagster_duckdb import DuckDBResource

from recsys_data.defs.resources import resources


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
