import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from recsys_data.cli import cli
from recsys_data.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a state folder that does not exist yet; commands see them too."""
    for name in list(os.environ):
        if name.startswith("RECSYS_DATA_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "state"))
    # Files that a test has just written are whole.
    monkeypatch.setenv("RECSYS_DATA_LANDING_REST_SECONDS", "0")
    return Settings.from_env()


@pytest.fixture
def run(settings: Settings) -> Callable[..., Result]:
    """Run a command in this process; an exception that users would see as a traceback fails the test."""

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def status(run: Callable[..., Result]) -> Callable[[], dict[str, Any]]:
    """What `recsys-data status --json` says."""
    return lambda: json.loads(run("status", "--json").stdout)


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a command as a process of its own, which hears Ctrl-C whatever the test's runner ignores."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        process = subprocess.Popen(
            [sys.executable, "-c", f"{hears} from recsys_data.cli import main; main()", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
