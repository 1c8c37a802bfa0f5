import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import yaml
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._grpc.client import DagsterGrpcClient

from recsys_data.errors import UserError
from recsys_data.ingestion.first_day import first_partition_day, remember
from recsys_data.operations.local.code_server import MODULE, CodeServer, code_server
from recsys_data.operations.ui import code_server as module
from recsys_data.settings import Settings

START_SECONDS = 120


class Server:
    """A server that answers as set, and remembers what it was asked; each wait is `SECONDS` long."""

    SECONDS = 20

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.now = 0.0

    def ping(self, echo: str) -> None:
        self.asked.append("ping")
        if not self.answers.pop(0):
            raise DagsterUserCodeUnreachableError

    def reload_code(self, timeout: int) -> None:
        self.asked.append("reload")
        raise DagsterUserCodeUnreachableError

    def wait(self, seconds: float) -> bool:
        self.now += self.SECONDS
        return not self.answers


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What a server with these answers is asked."""

    def found(*answers: bool) -> list[str]:
        server = Server(*answers)
        monkeypatch.setattr(module.time, "monotonic", lambda: server.now)
        module.keep(cast("DagsterGrpcClient", server), server.wait, lambda: None, lambda: None)
        return server.asked

    return found


def test_a_server_that_never_answered_is_left_to_start(asked: Callable[..., list[str]]) -> None:
    assert asked(False, False, False, False) == ["ping"] * 4


def test_a_server_that_fell_silent_is_replaced_after_a_while_and_again(asked: Callable[..., list[str]]) -> None:
    assert asked(True, False, True, False) == ["ping"] * 4
    assert asked(True, False, False, True) == ["ping", "ping", "ping", "reload", "ping"]
    assert asked(True, *[False] * 4) == ["ping", "ping", "ping", "reload", "ping", "ping", "reload"]


def test_definitions_are_loaded_anew_when_what_they_depend_on_changes() -> None:
    server = Server(*[True] * 4)
    days = iter(["2026-10-01"] * 2 + ["1995-01-01"] * 3)
    module.keep(cast("DagsterGrpcClient", server), server.wait, lambda: next(days), lambda: None)
    # A reload that fails, as of this server, is tried again.
    assert server.asked == ["ping", "ping", "reload", "ping", "reload", "ping", "reload"]


def test_nobody_listening_is_not_an_error(tmp_path: Path) -> None:
    assert not CodeServer(tmp_path / "none.sock", Path()).listens()


def test_only_this_user_reaches_the_socket_and_nothing_is_left(tmp_path: Path) -> None:
    with code_server(tmp_path) as code:
        assert code.clients == ["--workspace", str(tmp_path / "workspace.yaml")]
        (location,) = yaml.safe_load((tmp_path / "workspace.yaml").read_text("utf-8"))["load_from"]
        socket = Path(location["grpc_server"]["socket"])
        assert location["grpc_server"]["location_name"] == MODULE
        assert code.arguments[-1] == str(socket)
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()


def test_a_folder_with_too_long_a_name_for_a_socket_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(UserError, match="Set TMPDIR"), code_server(tmp_path):
        pass


@pytest.mark.integration
def test_the_process_behind_the_code_server_is_replaced_when_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLACE_AFTER_SECONDS", 3)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.2)
    over = threading.Event()
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "RECSYS_DATA_DIR": str(tmp_path / "state")}
    with code_server(tmp_path) as code:
        process = subprocess.Popen([sys.executable, *code.arguments], env=environment, start_new_session=True)
        try:
            wait_for(code.listens)
            client = DagsterGrpcClient(socket=str(code.path))
            keeper = threading.Thread(target=module.keep, args=(client, over.wait, lambda: None, lambda: None))
            keeper.start()
            wait_for(lambda: answers(client))
            time.sleep(1)
            (behind,) = children(process.pid)
            os.kill(behind, signal.SIGKILL)
            wait_for(lambda: not answers(client))
            wait_for(lambda: answers(client))
            over.set()
            if keeper.is_alive():
                keeper.join()
            assert process.poll() is None
            assert behind not in children(process.pid)
        finally:
            over.set()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.integration
def test_older_data_has_partitions_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.2)
    over = threading.Event()
    settings = Settings(dir=str(tmp_path / "state"))
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "RECSYS_DATA_DIR": settings.dir}
    with code_server(tmp_path) as code:
        client = DagsterGrpcClient(socket=str(code.path))
        days, reloaded = partial(first_partition_day, settings), threading.Event()
        keeper = threading.Thread(target=module.keep, args=(client, over.wait, days, reloaded.set), daemon=True)
        process = subprocess.Popen([sys.executable, *code.arguments], env=environment, start_new_session=True)
        try:
            wait_for(code.listens)
            keeper.start()
            wait_for(lambda: answers(client))
            first = str(datetime(2001, 5, 1, tzinfo=UTC).timestamp())
            assert first not in definitions(client)
            remember(settings, date(2001, 5, 5))
            wait_for(lambda: answers(client) and first in definitions(client))
            # The UI, which holds what it got from the server, gets it again.
            assert reloaded.wait(START_SECONDS)
        finally:
            over.set()
            if keeper.is_alive():
                keeper.join()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def definitions(client: DagsterGrpcClient) -> str:
    """What Dagster's other processes get, in which days are seconds since 1970."""
    origin = GrpcServerCodeLocationOrigin(host="localhost", socket=client.socket, location_name=MODULE)
    return client.external_repository(RemoteRepositoryOrigin(origin, "__repository__"))


def answers(client: DagsterGrpcClient) -> bool:
    try:
        client.ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
