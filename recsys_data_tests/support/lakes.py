"""Places for a lake: this machine, or stand-ins for S3 and Glue, and a real PostgreSQL."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from pyarrow import fs

from recsys_data_tests.support.servers import url_of

BUCKET = "lake"
REGION = "eu-west-1"


class Place(NamedTuple):
    """Settings that say where a lake is."""

    warehouse: str = ""
    catalog: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The same for processes of the test."""
        return {f"RECSYS_DATA_{name.upper()}": value for name, value in self._asdict().items() if value}


@contextmanager
def aws() -> Iterator[str]:
    """S3 and Glue on loopback; their URL. The environment leads clients there."""
    command = [sys.executable, "-m", "recsys_data_tests.support.aws_server"]
    root = Path(__file__).parents[2]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert server.stdin
        assert server.stdout
        endpoint = server.stdout.readline().strip()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        regions = {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        for name, value in {"AWS_ENDPOINT_URL": endpoint, **keys, **regions}.items():
            patch.setenv(name, value)
        yield endpoint
        server.stdin.close()


def objects(endpoint: str) -> fs.S3FileSystem:
    """The objects of the stand-in."""
    return fs.S3FileSystem(
        endpoint_override=endpoint.removeprefix("http://"), scheme="http", region=REGION, allow_bucket_creation=True
    )


@contextmanager
def database() -> Iterator[str]:
    """A new database of the PostgreSQL that the tests may use; its URL."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    url = url_of("RECSYS_TEST_POSTGRES_URL").replace("postgresql+psycopg://", "postgresql://")
    name = f"lake_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            yield f"{url.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
