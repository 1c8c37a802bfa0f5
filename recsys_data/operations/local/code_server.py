"""The code server of `recsys-data up`: it holds the definitions for the Dagster daemon and the UI alike.

Either would start one of its own, the daemon a new one every minute. Dagster's server is two processes: one that
clients speak to, by a socket that only this user can open, and one behind it that is replaced when the UI reloads.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from recsys_data.errors import UserError

MODULE = "recsys_data.definitions"
SOCKET_BYTES = 100
ANSWER_SECONDS = 2.0
REPLACE_AFTER_SECONDS = 30.0
REPLACE_SECONDS = 120.0


class CodeServer:
    """How the code server is started, reached and kept.

    Args:
        socket: where it listens.
        workspace: the file that tells Dagster's other processes of it.
    """

    def __init__(self, socket: Path, workspace: Path) -> None:
        self._socket = socket
        self._workspace = workspace
        self._well_at: float | None = None

    @property
    def arguments(self) -> list[str]:
        """Python's arguments to start it."""
        return ["-m", "dagster", "code-server", "start", "-m", MODULE, "--socket", str(self._socket)]

    @property
    def clients(self) -> list[str]:
        """Arguments of Dagster's other processes."""
        return ["--workspace", str(self._workspace)]

    def keep(self) -> bool:
        """Whether it answers. The process behind it is replaced if it answered before and has not for a while."""
        now = time.monotonic()
        if self._call("Ping", ANSWER_SECONDS):
            self._well_at = now
            return True
        if self._well_at is not None and now - self._well_at > REPLACE_AFTER_SECONDS:
            # Nobody waits for it: the other processes are to be looked after, and Ctrl-C heard.
            threading.Thread(target=self._call, args=("ReloadCode", REPLACE_SECONDS), daemon=True).start()
            self._well_at = now + REPLACE_SECONDS
        return False

    def _call(self, method: str, seconds: float) -> bool:
        """Whether it did what it was asked to, in that time."""
        import grpc

        # Each call has its own channel: one that lives would have threads when the next process is started.
        with grpc.insecure_channel(f"unix:{self._socket}") as channel:
            try:
                # An empty request is the message with all its defaults, and nobody reads the answer.
                channel.unary_unary(f"/api.DagsterApi/{method}")(b"", timeout=seconds)
            except grpc.RpcError:
                return False
            return True


@contextmanager
def code_server(folder: Path) -> Iterator[CodeServer]:
    """A code server that can be started; its workspace file is written below the folder.

    Raises:
        UserError: the folder of temporary files has so long a name that no socket fits in.
    """
    import yaml

    from recsys_data.durable import write_atomically

    # A state folder may have a longer name than a socket can.
    with TemporaryDirectory(prefix="recsys-data-") as temporary:
        socket = Path(temporary) / "code.sock"
        if len(os.fsencode(socket)) > SOCKET_BYTES:
            raise UserError(f"{temporary} is too long a name for a socket. Set TMPDIR to a folder with a shorter one.")
        workspace = folder / "workspace.yaml"
        server = {"grpc_server": {"socket": str(socket), "location_name": MODULE}}
        write_atomically(workspace, yaml.safe_dump({"load_from": [server]}).encode())
        yield CodeServer(socket, workspace)
