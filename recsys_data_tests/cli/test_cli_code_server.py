import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import yaml

from recsys_data.errors import UserError
from recsys_data.operations.local import code_server as module
from recsys_data.operations.local.code_server import MODULE, CodeServer, code_server

START_SECONDS = 120


class Server:
    """A server that answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.well = True
        self.asked: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers([self])
        self.folder = tempfile.TemporaryDirectory()
        self.socket = Path(self.folder.name) / "code.sock"
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.asked.append(call.method)
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if not self.well:
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        return b""

    def stop(self) -> None:
        self._server.stop(0).wait()
        self.folder.cleanup()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def test_a_server_that_never_answered_is_left_to_start(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLACE_AFTER_SECONDS", 0)
    server.well = False
    code = CodeServer(server.socket, Path())
    assert [code.keep() for _ in range(3)] == [False] * 3
    assert set(server.asked) == {"/api.DagsterApi/Ping"}


def test_a_server_that_fell_silent_is_replaced_after_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    code = CodeServer(server.socket, Path())
    assert code.keep()
    server.well = False
    assert not code.keep()
    assert "/api.DagsterApi/ReloadCode" not in server.asked
    monkeypatch.setattr(module, "REPLACE_AFTER_SECONDS", -1)
    assert not code.keep()
    wait_for(lambda: "/api.DagsterApi/ReloadCode" in server.asked)
    server.well = True
    assert code.keep()


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    assert not CodeServer(tmp_path / "none.sock", Path()).keep()


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
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "RECSYS_DATA_DIR": str(tmp_path / "state")}
    with code_server(tmp_path) as code:
        process = subprocess.Popen([sys.executable, *code.arguments], env=environment, start_new_session=True)
        try:
            wait_for(code.keep)
            (behind,) = children(process.pid)
            os.kill(behind, signal.SIGKILL)
            wait_for(lambda: not code.keep())
            wait_for(code.keep)
            assert process.poll() is None
            assert behind not in children(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
