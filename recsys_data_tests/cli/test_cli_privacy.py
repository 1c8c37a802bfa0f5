"""What is stored is for its owner, and what may be asked of it is confined to it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from recsys_data.monitoring.doctor.machine import privacy
from recsys_data.settings import Settings

EVENT = b'{"event_id":"1","type":"view","user_id":"u1","item_id":"i1","event_ts":"2026-01-02T03:04:05.5Z"}\n'


def test_what_commands_write_is_closed_to_other_users(tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").write_bytes(EVENT)
    state = tmp_path / "state"
    environment = os.environ | {"RECSYS_DATA_DIR": str(state)}
    for arguments in (["load", "events", str(tmp_path / "events.ndjson")], ["ingest", "--until-empty"]):
        command = [sys.executable, "-m", "recsys_data.cli", *arguments]
        subprocess.run(command, env=environment, check=True, capture_output=True, umask=0)
    written = list(state.rglob("*"))
    assert any(path.suffix == ".parquet" for path in written)
    assert [path for path in [state, *written] if path.stat().st_mode & 0o027] == []


@pytest.mark.parametrize(("mode", "state"), [(0o755, "warning"), (0o750, "ok")])
def test_doctor_tells_of_folders_that_everybody_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, state: str
) -> None:
    settings = Settings(dir=str(tmp_path / "state"))
    monkeypatch.setattr(Path, "parents", property(lambda _: ()))
    settings.data_dir.mkdir()
    settings.data_dir.chmod(0o755)
    settings.lake_dir.mkdir()
    settings.lake_dir.chmod(mode)
    (finding,) = privacy(settings)
    assert finding.state == state
    assert ("umask 027" in finding.advice) == (state == "warning")


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = Settings(dir=str(tmp_path), write_keys="s3cret-one,s3cret-two")
    assert "s3cret" not in f"{settings!r} {settings} {settings.keys!r} {settings.keys}"
    assert "2 hidden" in repr(settings)


OUT = "pwned.csv"
REACHING = [
    "FROM read_csv('/etc/passwd')",
    "FROM '/etc/passwd'",
    "FROM glob('/etc/*')",
    "FROM read_csv('/proc/self/environ')",
    "FROM read_parquet('http://127.0.0.1:1/x')",
    "FROM parquet_metadata('/etc/passwd')",
    "FROM query('FROM read_text(''/etc/passwd'')')",
    "PIVOT (FROM read_text('/etc/passwd')) ON filename IN ('x')",
    "SUMMARIZE '/etc/passwd'",
    "FROM duckdb_secrets()",
    "FROM read_text('{catalog}')",
    "FROM sqlite_scan('{catalog}', 'iceberg_tables')",
    f"COPY (SELECT 1) TO '{OUT}'",
    f"WITH a AS (COPY (SELECT 1) TO '{OUT}') FROM a",
    f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{OUT}'",
    f"FROM query('COPY (SELECT 1) TO ''{OUT}''')",
    f"EXPORT DATABASE '{OUT}'",
    f"ATTACH '{OUT}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "FROM enable_logging()",
    "CALL enable_logging()",
    "DELETE FROM interactions",
    "CREATE TABLE x AS SELECT 1",
]


@pytest.mark.parametrize("query", REACHING)
def test_a_query_reaches_the_datasets_and_nothing_else(
    run: Callable[..., Result], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run("sql", query.replace("{catalog}", str(settings.lake_dir / "catalog.db")), code=1)
    assert "root:" not in answer.output
    assert not Path(OUT).exists()
