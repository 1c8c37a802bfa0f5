"""Apache Iceberg's own server of its REST protocol, of which its tests are made, with its files in S3.

Needs Java and RECSYS_TEST_REST_JARS, the folder of the jars that `pom.xml` lists.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys_data_tests.support.kafka.broker import free_port

JARS = "RECSYS_TEST_REST_JARS"
START_SECONDS = 60.0
JAVA = ("java", "-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
MAIN = "org.apache.iceberg.rest.RESTCatalogServer"


@contextmanager
def rest_catalog(folder: Path, s3: str, warehouse: str) -> Iterator[str]:
    """Its URL; its tables are noted in a database in `folder`."""
    jars = os.environ.get(JARS)
    if not jars:
        pytest.fail(f"{JARS} is not set. Set it to the folder of the jars of support/rest/pom.xml, or run .ci/run.")
    port = free_port()
    properties = {
        "REST_PORT": str(port),
        "URI": f"jdbc:sqlite:{folder}/rest.db",
        "WAREHOUSE": warehouse,
        "IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
        "S3_ENDPOINT": s3,
        "S3_PATH__STYLE__ACCESS": "true",
        "CLIENT_REGION": os.environ["AWS_REGION"],
    }
    environment = {**os.environ, **{f"CATALOG_{name}": value for name, value in properties.items()}}
    command = [*JAVA, "-cp", f"{jars}/*", MAIN]
    with (
        (folder / "rest.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _wait(process, port, folder / "rest.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The REST catalog did not start: {log.read_text()}") from None
            time.sleep(0.1)
        else:
            return
