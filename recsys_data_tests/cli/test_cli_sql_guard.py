"""`recsys-data sql` is guarded twice: by the list of functions, and by the kernel for whatever gets past it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from click.testing import Result

from recsys_data.monitoring.doctor.machine import query_guard
from recsys_data.settings import Settings
from recsys_data.storage.guard import read_only
from recsys_data.storage.guard.landlock import available

Run = Callable[..., Result]

EVENT = b'{"event_id":"1","type":"view","user_id":"u1","item_id":"i1","event_ts":"2026-01-02T03:04:05.5Z"}\n'
COPY = "WITH x AS (COPY (SELECT 1 AS a) TO '{0}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM x"


@pytest.fixture
def fed(run: Run, tmp_path: Path) -> Run:
    """Commands on a lake with an interaction."""
    (tmp_path / "events.ndjson").write_bytes(EVENT)
    run("load", "events", str(tmp_path / "events.ndjson"))
    run("ingest", "--until-empty")
    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def executing(statement: str) -> str:
    """A query that runs a statement that it holds as text."""
    quoted = statement.replace("'", "''")
    return f"SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{quoted}'))"


def test_sql_in_text_writes_over_no_data_file(fed: Run, settings: Settings) -> None:
    before = contents(settings.lake_dir)
    file = next(settings.lake_dir.rglob("*.parquet"))
    said = fed("sql", executing(COPY.format(file)), code=1).stderr
    assert "json_execute_serialized_sql runs SQL" in said
    assert contents(settings.lake_dir) == before


# Each is answered, or does harm, where neither the list nor the kernel nor DuckDB's own settings stand before it.
REACHING = {
    "writing a file": executing(COPY.format("{file}")),
    "writing a file by a plan": "FROM json_execute_serialized_sql(json_serialize_sql('COPY (SELECT 1) TO ''{new}'''))",
    "reading a file": "FROM read_text('{secret}')",
    "reading a file of the lake": "FROM read_blob('{catalog}')",
    # DuckDB takes a folder that it may not list for an empty one.
    "listing files": "SELECT error(file) FROM (SELECT coalesce(max(file), 'none') AS file FROM glob('{folder}/*'))",
    "the environment": "FROM read_text('/proc/self/environ')",
    "temporary files of the current folder": "FROM read_text('.tmp/left.csv')",
    "attaching": "ATTACH '{catalog}' AS other",
    "attaching a new database": "ATTACH '{new}' AS other",
    "loading an extension": "LOAD '{secret}'",
    "a connection": "FROM read_csv('http://127.0.0.1:1/x')",
}


@pytest.mark.skipif(not available(), reason="the kernel has no Landlock")
def test_the_kernel_refuses_what_would_get_past_the_list_and_duckdb(
    fed: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / ".tmp").mkdir(parents=True)
    (tmp_path / "here" / ".tmp" / "left.csv").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    file = next(settings.lake_dir.rglob("*.parquet"))
    places = {
        "file": file,
        "folder": file.parent,
        "new": tmp_path / "new",
        "secret": tmp_path / "secret",
        "catalog": settings.lake_dir / "catalog.db",
    }
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(read_only, "only_query", lambda text: text)
    monkeypatch.setattr("recsys_data.storage.query._confine", lambda *_: None)
    for what, query in REACHING.items():
        answer = fed("sql", query.format(**places), "--format", "csv", code=1)
        assert answer.stdout == "", what
        assert "Invalid Input Error: /" not in answer.stderr, what
        assert contents(tmp_path) == before, what


def test_a_session_takes_and_leaves_nothing_in_the_current_folder(
    fed: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / ".tmp").mkdir(parents=True)
    (tmp_path / "here" / ".tmp" / "left.csv").write_text("a\n1\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(read_only, "only_query", lambda text: text)
    found = fed("sql", "SELECT current_setting('temp_directory') AS folder", "--format", "json").stdout
    folder = Path(json.loads(found)[0]["folder"])
    assert folder.is_absolute()
    assert not folder.parent.exists(), "it goes with the command"
    with pytest.raises(AssertionError):
        fed("sql", "FROM read_csv('.tmp/left.csv')")
    assert sorted((tmp_path / "here").rglob("*")) == [tmp_path / "here" / ".tmp", tmp_path / "here/.tmp/left.csv"]


def test_variables_of_python_are_no_tables(fed: Run) -> None:
    # `statement`, `views` and others are names where the query is run.
    said = fed("sql", "FROM views", code=1).stderr
    assert "Table with name views does not exist" in said


def test_the_process_that_asks_is_not_confined(fed: Run, tmp_path: Path) -> None:
    fed("sql", "SELECT count(*) FROM interactions")
    (tmp_path / "after").write_text("x")
    assert (tmp_path / "after").read_text() == "x"
    with duckdb.connect() as connection:
        assert connection.sql(f"FROM read_text('{tmp_path}/after')").fetchall()


def test_without_landlock_the_list_and_duckdb_remain_and_doctor_says_so(
    fed: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_data.storage.guard.landlock.available", lambda: 0)
    assert fed("sql", "SELECT count(*) AS n FROM interactions", "--format", "csv").stdout == "n\n1\n"
    fed("sql", "FROM read_text('/etc/hostname')", code=1)
    (finding,) = query_guard(settings)
    assert (finding.state, "Landlock" in finding.found) == ("ok", True)
    assert "not confined by the kernel" in finding.found


@pytest.mark.skipif(not available(), reason="the kernel has no Landlock")
def test_the_command_is_confined_in_a_process_of_its_own(fed: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recsys_data.cli", "sql", "SELECT type, count(*) FROM interactions GROUP BY 1"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True)
    assert "view" in done.stdout
    assert not (tmp_path / ".tmp").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_a_query_for_more_memory_than_its_share_ends_with_a_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    bounds = resource.getrlimit(resource.RLIMIT_DATA)
    taken = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    share = (taken + 2**30) / (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    bounded = read_only.bounded_memory
    monkeypatch.setattr(read_only, "bounded_memory", lambda: bounded(share))
    # One list of 2.4 GB.
    said = run("sql", "SELECT len(range(300_000_000))", code=1).stderr
    assert "Out of Memory Error" in said
    assert resource.getrlimit(resource.RLIMIT_DATA) == bounds
