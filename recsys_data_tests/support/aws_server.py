"""A stand-in for S3 and Glue, to be run as a process: prints its URL, and serves until its input ends.

A process of its own, because clients in C++ wait for answers while they hold Python's lock.
"""

import logging
import sys
from typing import Any


def compare_versions() -> None:
    """Let the stand-in for Glue refuse an update of another version than the current one, as Glue does."""
    from moto.core.exceptions import JsonRESTError
    from moto.glue.responses import GlueResponse

    update: Any = GlueResponse.update_table

    def compared(response: Any) -> Any:
        name = response.parameters["TableInput"]["Name"]
        table = response.glue_backend.get_table(response.parameters["DatabaseName"], name)
        if response.parameters.get("VersionId") not in (None, table.as_dict()["VersionId"]):
            raise JsonRESTError("ConcurrentModificationException", "The table was changed meanwhile.")
        return update(response)

    GlueResponse.update_table = compared


def main() -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    compare_versions()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
