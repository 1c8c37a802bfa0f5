import csv
import json
import sqlite3
from contextlib import closing, redirect_stderr
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.cli.demo import REFRESH_SECONDS, is_new, keep_sources, prepare
from recsys_data.cli.up import demo_contracts
from recsys_data.contracts import load_contracts
from recsys_data.contracts.servers import Server
from recsys_data.settings import Settings
from recsys_data.simulator.shop.contracts import write_contracts
from recsys_data.sources.extract import extract
from recsys_data.sources.source import ColumnRequest, is_live

EVE = datetime(2026, 11, 24, 23, 59, 30, tzinfo=UTC).timestamp()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A state folder whose demo sources were kept from before midnight until after it, and what was reported.

    The database is damaged at first.
    """
    folder = tmp_path_factory.mktemp("state")
    database = folder / "demo" / "shop.db"
    database.parent.mkdir()
    database.write_bytes(b"not a database" * 100)
    moments = iter([EVE, EVE + 60])
    waits: list[float] = []

    def done(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 1:
            database.unlink()
        return len(waits) == 2

    with redirect_stderr(StringIO()) as reported:
        keep_sources(folder / "demo", done, lambda: next(moments))
    assert waits == [REFRESH_SECONDS] * 2
    return folder, reported.getvalue()


@pytest.fixture
def state(kept: tuple[Path, str]) -> Path:
    return kept[0]


def fields(state: Path, server: Server) -> set[str]:
    """What a source of the demo calls its columns; of nested ones the whole path."""
    if server.table:
        path = server.location.removeprefix("sqlite:///").format(data_dir=state)
        with closing(sqlite3.connect(path)) as database:
            return {row[1] for row in database.execute(f"PRAGMA table_info({server.table})")}
    (path,) = Path("/").glob(server.location.format(data_dir=state, day="2026-11-24").lstrip("/"))
    with path.open(encoding="utf-8", newline="") as file:
        if server.format == "csv":
            return set(next(csv.reader(file)))
        row = json.loads(file.readline())
    inner = {f"{name}.{part}" for name, value in row.items() if isinstance(value, dict) for part in value}
    return set(row) | inner


def test_exports_are_there_from_the_start_and_follow_the_days(state: Path) -> None:
    for system in ("crm", "pim", "cms"):
        found = sorted(path.name for path in (state / "demo" / system).iterdir())
        assert found == [date(2026, 11, day).isoformat() for day in range(19, 25)]


@pytest.mark.parametrize("name", ["user_profiles", "item_catalog"])
def test_contracts_of_the_demo_name_what_its_sources_have(state: Path, name: str) -> None:
    contract = load_contracts(write_contracts(state / "demo"))[name]
    built_in = load_contracts()[name]
    assert contract.columns == built_in.columns
    assert contract.rules == built_in.rules
    known = {column.name for column in contract.columns}
    for server in contract.servers:
        there = fields(state, server)
        assert set(server.columns) <= known
        assert set(server.columns.values()) <= there
        # Whatever is not called otherwise is called the same; the rest of a record belongs to nested columns.
        outer = {path.split(".")[0] for path in server.columns.values()} | set(server.columns.values())
        rest = {field for field in there - outer if field.split(".")[0] not in outer}
        assert rest <= known, (server.name, rest - known)


@pytest.mark.parametrize(("name", "rows"), [("user_profiles", 19_000), ("item_catalog", 3_800)])
def test_every_row_of_the_sources_is_as_the_contract_wants_it(state: Path, name: str, rows: int) -> None:
    today, eve = datetime.now(UTC).date(), date(2026, 11, 24)
    contract = load_contracts(write_contracts(state / "demo"))[name]
    for server in contract.servers:
        asked = [
            ColumnRequest(column.name, column.type, server.columns.get(column.name, column.name))
            for column in contract.columns
            if not column.system
        ]
        with extract(server, asked, today if is_live(server) else eve, state) as found:
            problems = [row for batch in found.batches for row in batch.column("_problems").to_pylist()]
        assert len(problems) > rows
        assert not any(problems)


def test_the_children_are_pointed_at_the_contracts_of_the_demo(tmp_path: Path) -> None:
    variables = demo_contracts(Settings(dir=str(tmp_path)))
    assert variables == {"RECSYS_DATA_CONTRACTS": str(tmp_path / "demo" / "contracts")}
    assert [
        server.name for server in load_contracts(Path(variables["RECSYS_DATA_CONTRACTS"]))["user_profiles"].servers
    ] == ["shop", "crm"]


def test_contracts_of_the_users_own_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_contracts(Settings(dir=str(tmp_path), contracts="/mine")) == {}
    assert "RECSYS_DATA_CONTRACTS is /mine" in capsys.readouterr().out


def test_what_fails_is_reported_and_tried_again(kept: tuple[Path, str]) -> None:
    folder, reported = kept
    assert reported.count("Error: The demo's database") == 1
    assert [line for line in reported.splitlines() if line.startswith("Exported")] == [
        f"Exported 2026-11-{day}." for day in range(19, 25)
    ]
    with closing(sqlite3.connect(folder / "demo" / "shop.db")) as database:
        assert database.execute("SELECT count(*) FROM customers").fetchone()[0] > 19_000


def test_a_new_lake_gets_past_traffic_and_models_and_one_that_was_used_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    assert is_new()
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> bool:
        commands.append(command)
        if command[0] == "simulate":
            assert CliRunner().invoke(cli, ["simulate", "--events", "40", "--days", "1"]).exit_code == 0
            assert CliRunner().invoke(cli, ["ingest", "--until-empty"]).exit_code == 0
        return True

    monkeypatch.setattr("recsys_data.cli.demo.ENOUGH", 20)
    prepare("http://127.0.0.1:8080", run, lambda seconds: False)
    assert commands[0][-2:] == ("--to", "http://127.0.0.1:8080")
    assert commands[1:] == [("train", "item_knn"), ("train", "rp3beta")]
    assert not is_new()


def test_without_past_traffic_no_model_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> bool:
        commands.append(command)
        return len(commands) > 1

    # The first time it cannot be sent, the second time the demo ends before it is stored.
    prepare("http://127.0.0.1:8080", run, lambda seconds: True)
    prepare("http://127.0.0.1:8080", run, lambda seconds: True)
    assert [command[0] for command in commands] == ["simulate", "simulate"]
