"""`recsys_data.connect`: the lake in notebooks and scripts, read only."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

import recsys_data
from recsys_data.api import Connection
from recsys_data.contracts import load_contracts
from recsys_data.errors import UserError
from recsys_data_tests.support.platform import Platform, view

EMPTY = date(2020, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with three interactions."""
    folder = tmp_path_factory.mktemp("state")
    platform = Platform(folder, load_contracts())
    platform.append([view(event_id, day=day) for event_id, day in (("a", 1), ("b", 1), ("c", 2))])
    platform.consume()
    for writer in platform.writers:
        writer.close()
    return folder


@pytest.fixture
def lake(folder: Path) -> Connection:
    return recsys_data.connect(folder)


def test_a_query_gives_pandas_and_arrow(lake: Connection) -> None:
    found = lake.sql("SELECT event_id, event_ts FROM interactions ORDER BY ALL")
    frame = found.df()
    assert frame.event_id.tolist() == ["a", "b", "c"]
    assert str(frame.event_ts.dt.tz) == "UTC"
    assert found.to_arrow_table().num_rows == 3
    assert found.filter("event_id > 'a'").aggregate("count(*)").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("query", "params"),
    [("SELECT count(*) FROM interactions WHERE event_id <> ?", ["a"]),
     ("SELECT count(*) FROM interactions WHERE event_id <> $id", {"id": "a"})],
)  # fmt: skip
def test_values_are_parameters(lake: Connection, query: str, params: list[str] | Mapping[str, str]) -> None:
    assert lake.sql(query, params).fetchall() == [(2,)]


def test_a_dataset_is_a_relation_that_outlives_its_connection(folder: Path) -> None:
    found = recsys_data.connect(folder).table("interactions")
    assert found.filter("event_id = 'b'").select("event_id").fetchall() == [("b",)]
    assert len(found.df()) == 3


def test_datasets_are_named_also_without_rows(lake: Connection) -> None:
    assert {"interactions", "item_catalog", "dead_letters"} <= set(lake.datasets)
    assert lake.table("item_catalog").fetchall() == []
    with pytest.raises(UserError, match="Unknown dataset 'nosuch'. Choose one of"):
        lake.table("nosuch")


def test_the_past_is_shown_by_time_and_by_snapshot(lake: Connection) -> None:
    snapshot = lake._lake.table("interactions").current_snapshot()
    assert snapshot
    for moment, count in (
        (EMPTY, 0),
        ("2020-01-01T10:00:00+02:00", 0),
        (datetime.now(UTC), 3),
        (snapshot.snapshot_id, 3),
    ):
        assert len(lake.table("interactions", as_of=moment)) == count
        assert lake.sql("SELECT count(*) FROM interactions", as_of=moment).fetchall() == [(count,)]
    with pytest.raises(UserError, match="expected a time such as"):
        lake.table("interactions", as_of="yesterday")


@pytest.mark.parametrize(
    "query",
    ["DROP VIEW interactions", "COPY interactions TO 'x.csv'", "SELECT 1; SELECT 2", "FROM read_text('/etc/hostname')"],
)
def test_queries_that_do_more_than_read_are_refused(lake: Connection, query: str) -> None:
    with pytest.raises(UserError):
        lake.sql(query)


def test_a_dataset_s_session_reads_no_other_file_and_no_variable(lake: Connection, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    session = lake.table("interactions")
    for query in (f"FROM read_text('{tmp_path}/secret')", "FROM tmp_path", "SET enable_external_access = true"):
        with pytest.raises(duckdb.Error):
            session.query("rows", query)


def test_importing_the_package_is_light() -> None:
    script = (
        "import sys, recsys_data; print([m for m in ('duckdb', 'pyarrow', 'numpy', 'dagster') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
