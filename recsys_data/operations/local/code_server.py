"""The code server of `recsys-data up`: it holds the definitions for the Dagster daemon and the UI alike.

Otherwise each would start one of its own, the daemon a new one every minute. Clients call it by a socket that only this
user can open. `ui/code_server.py` replaces the process behind it when that one died.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from recsys_data.errors import UserError

MODULE = "recsys_data.definitions"
SOCKET_BYTES = 100
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CodeServer:
    """How the code server is started and reached.

    Args:
        path: of the socket that it listens on.
        workspace: the file that names it to Dagster's other processes.
    """

    path: Path
    workspace: Path

    @property
    def arguments(self) -> list[str]:
        """Python's arguments to start it."""
        return ["-m", "dagster", "code-server", "start", "-m", MODULE, "--socket", str(self.path)]

    @property
    def clients(self) -> list[str]:
        """Arguments of Dagster's other processes."""
        return ["--workspace", str(self.workspace)]

    def listens(self) -> bool:
        """Whether it accepts connections, which it does as soon as the definitions are loaded."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_SECONDS)
            try:
                client.connect(str(self.path))
            except OSError:
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
        path = Path(temporary) / "code.sock"
        if len(os.fsencode(path)) > SOCKET_BYTES:
            raise UserError(f"{temporary} is too long a name for a socket. Set TMPDIR to a folder with a shorter one.")
        workspace = folder / "workspace.yaml"
        server = {"grpc_server": {"socket": str(path), "location_name": MODULE}}
        write_atomically(workspace, yaml.safe_dump({"load_from": [server]}).encode())
        yield CodeServer(path, workspace)
