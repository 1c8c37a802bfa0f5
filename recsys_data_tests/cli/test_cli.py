import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from recsys_data.cli import cli
from recsys_data.cli.support.commands import Commands
from recsys_data.errors import Transient
from recsys_data.operations.platform import explain
from recsys_data.settings import Settings

Run = Callable[..., Result]
HEAVY = ("dagster", "duckdb", "jsonschema", "numpy", "pandas", "pyarrow", "pyiceberg", "rich", "sqlalchemy", "yaml")


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    """The words of every command, e.g. ("contract", "show")."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *names, name) if isinstance(command, click.Group) else [(*names, name)]
    return found


def test_help_is_there_without_heavy_imports() -> None:
    script = f"import sys, recsys_data.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_explains_itself_with_an_example(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help").stdout
    assert f"recsys-data {' '.join(words)}" in text.partition("Examples:")[2]


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "recsys_data.cli", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "recsys-data" in done.stdout


@click.group(cls=Commands)
def failing() -> None:
    pass


@failing.command()
@click.argument("name")
def fail(name: str) -> None:
    raise {
        "known": Transient("the log is held. Wait."),
        "full": OSError(errno.ENOSPC, "No space left on device", "/data/log"),
        "stopped": KeyboardInterrupt(),
        "bug": ZeroDivisionError("division by zero"),
    }[name]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("known", 1, "Error: the log is held. Wait.\n"),
        ("full", 1, "Error: No space left on device (/data/log). Free space there, or move RECSYS_DATA_DIR to a disk"),
        ("stopped", 130, ""),
    ],
)
def test_errors_for_users_are_messages(name: str, code: int, said: str) -> None:
    result = CliRunner().invoke(failing, ["fail", name])
    assert result.exit_code == code
    assert result.stderr.startswith(said) and "Traceback" not in result.stderr


def test_a_defect_shows_where_it_is() -> None:
    result = CliRunner().invoke(failing, ["fail", "bug"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert explain(ZeroDivisionError()) is None


def test_a_catalog_that_cannot_be_used_is_explained() -> None:
    from sqlalchemy.exc import OperationalError

    error = OperationalError("INSERT", {}, Exception("database or disk is full"))
    assert "catalog cannot be used now: database or disk is full" in (explain(error) or "")


def test_a_reader_that_goes_away_is_no_error(settings: Settings) -> None:
    pipeline = f"{sys.executable} -m recsys_data.cli sql --format csv 'FROM range(1000000)' | head -n 2"
    done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


COMMANDS = [
    ("status",),
    ("ingest", "--until-empty"),
    ("simulate", "--events", "1"),
    ("sql", "SELECT 1"),
    ("collect", "--port", "0"),
    ("up",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_state_folder_that_cannot_be_is_explained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "file" / "state"))
    error = run(*words, code=1).stderr
    assert "Not a directory" in error
    assert "RECSYS_DATA_DIR" in error


def test_an_unknown_setting_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIRR", "x")
    assert "Unknown setting RECSYS_DATA_DIRR" in run("status", code=1).stderr


def test_status_is_shown_to_people(run: Run) -> None:
    run("simulate", "--events", "200")
    run("ingest", "--until-empty")
    text = run("status").stdout
    assert "balanced" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("interactions"))
    assert row[-1] == "fresh"


def test_status_says_when_the_ledger_is_off(run: Run, settings: Settings) -> None:
    run("simulate", "--events", "200")
    run("ingest", "--until-empty")
    from recsys_data.contracts import load_contracts
    from recsys_data.storage.tables import open_lake

    table = open_lake(settings, load_contracts()).table("contexts")
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(next(iter(table.scan().plan_files())).file)
    assert "NOT BALANCED" in run("status").stdout
