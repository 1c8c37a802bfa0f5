import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from recsys_data.errors import UserError
from recsys_data.operations.local.dagster_home import dagster_home, shipped
from recsys_data.settings import Settings

Run = Callable[..., Result]
START_SECONDS = 180


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


PORTS = ("--port", "--collector-port", "--serving-port")


def ports() -> list[str]:
    """Options of `up` with free ports."""
    return [word for option in PORTS for word in (option, str(free_port()))]


@pytest.mark.parametrize("option", PORTS)
def test_a_port_in_use_is_named_with_its_option(run: Run, settings: Settings, taken: int, option: str) -> None:
    error = run("up", *ports(), option, str(taken), code=1).stderr
    assert f"Port {taken} on 127.0.0.1 is in use" in error
    assert error.rstrip().endswith(f"{option}.")
    assert not settings.data_dir.exists()


def test_collect_names_a_port_in_use(run: Run, taken: int) -> None:
    assert f"Port {taken} on 127.0.0.1 is in use" in run("collect", "--port", str(taken), code=1).stderr


def test_others_are_not_let_in_without_a_key(run: Run) -> None:
    for option in ("--host", "--serving-host"):
        assert "RECSYS_DATA_WRITE_KEYS" in run("up", option, "0.0.0.0", *ports(), code=1).stderr


def test_a_state_folder_has_one_supervisor(run: Run, settings: Settings) -> None:
    settings.data_dir.mkdir()
    with (settings.data_dir / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711")
        file.flush()
        assert "already, as process 4711" in run("up", *ports(), code=1).stderr


@pytest.mark.parametrize("name", ["state", "a folder: with # and 'quotes'"])
def test_dagster_is_configured_as_the_project_says_below_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    folder = tmp_path / name
    home = dagster_home(Settings(dir=str(folder)))
    assert home == folder / "dagster"
    found = yaml.safe_load((home / "dagster.yaml").read_text("utf-8"))
    project = yaml.safe_load(shipped().read_text("utf-8"))
    assert found["storage"]["sqlite"]["base_dir"] == str(home)
    assert found["compute_logs"]["config"]["base_dir"] == str(home / "logs")
    back = json.loads(json.dumps(found).replace(json.dumps(str(home))[1:-1], "data/dagster"))
    assert back == project
    assert found["telemetry"] == {"enabled": False}


def test_the_users_own_dagster_home_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert dagster_home(Settings(dir=str(tmp_path / "state"))) == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["relative", "/nowhere/at/all"])
def test_a_dagster_home_that_is_none_is_explained(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", value)
    with pytest.raises(UserError, match="DAGSTER_HOME"):
        dagster_home(Settings())


class Up:
    """`recsys-data up` on free ports, and what belongs to it."""

    def __init__(self, start: Callable[..., "subprocess.Popen[str]"], *options: str) -> None:
        self.port, self.collector_port, self.serving_port = free_port(), free_port(), free_port()
        numbers = (self.port, self.collector_port, self.serving_port)
        given = [word for option, port in zip(PORTS, numbers, strict=True) for word in (option, str(port))]
        self.process = start("up", *given, *options)
        self.sessions: set[int] = set()

    def wait_for(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not what():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            self.sessions |= {session for session, parent in self.processes() if parent == self.process.pid}
            time.sleep(0.5)

    def processes(self) -> list[tuple[int, int]]:
        """Session and parent of every process that is not a zombie."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found.append((int(session), int(parent)))
        return found

    def answer(self, path: str) -> Any:
        try:
            token = (Settings.from_env().data_dir / "ui-token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=5) as response:
                return json.load(response)
        except OSError:
            return None

    def survivors(self) -> set[int]:
        return self.sessions & {session for session, _ in self.processes()}


@pytest.mark.integration
def test_everything_runs_from_one_command_and_ends_with_it(
    run: Run, start: Callable[..., "subprocess.Popen[str]"], status: Callable[[], dict[str, Any]]
) -> None:
    up = Up(start, "--rate", "50")
    up.wait_for(lambda: up.answer("/server_info"))
    up.wait_for(lambda: status()["ledger"]["read"] > 100)
    assert len(up.sessions) == 1 + 7  # with the guard
    up.process.send_signal(signal.SIGTERM)
    output, errors = up.process.communicate(timeout=60)
    assert (up.process.returncode, errors) == (0, "")
    assert f"Dagster UI  http://127.0.0.1:{up.port}" in output
    assert not up.survivors()
    assert status()["ledger"]["balanced"]
    rows = json.loads(run("sql", "SELECT count(*) AS n FROM interactions", "--format", "json").stdout)
    assert rows[0]["n"] > 50


@pytest.mark.integration
def test_when_one_process_ends_all_end_and_it_is_named(
    settings: Settings, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    up = Up(start, "--no-demo")
    up.wait_for(lambda: up.answer("/server_info"))
    up.wait_for(lambda: len(up.sessions) == 1 + 6)  # with the guard
    _, collector, *_ = sorted(up.sessions)
    os.kill(collector, signal.SIGKILL)
    _, errors = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert "The collector was ended by signal 9" in errors
    assert str(settings.data_dir / "logs" / "collector.log") in errors
    assert not up.survivors()


@pytest.mark.integration
def test_a_killed_supervisor_takes_everything_with_it(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    up = Up(start, "--no-demo")
    up.wait_for(lambda: up.answer("/server_info"))
    up.wait_for(lambda: len(up.sessions) == 1 + 6)
    up.process.kill()
    up.process.wait()
    deadline = time.monotonic() + 60
    while up.survivors():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.integration
def test_a_process_that_cannot_start_shows_why(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage: nonsense")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    up = Up(start, "--no-demo")
    _, errors = up.process.communicate(timeout=120)
    assert up.process.returncode == 1
    assert "Error: The " in errors and "storage" in errors
