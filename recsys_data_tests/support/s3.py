"""A stand-in for S3 within the process of the tests, on loopback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pyarrow import fs

# Puts an object below `shop/exports/`.
Put = Callable[[str, bytes], None]


@contextmanager
def s3_endpoint() -> Iterator[str]:
    """Its URL; the environment holds keys that it takes."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield f"http://{host}:{port}"
    server.stop()


def shop_bucket(endpoint: str) -> Put:
    """The bucket `shop`, made here."""
    files = fs.S3FileSystem(
        endpoint_override=endpoint.removeprefix("http://"), scheme="http", allow_bucket_creation=True
    )
    files.create_dir("shop")

    def put(name: str, content: bytes) -> None:
        with files.open_output_stream(f"shop/exports/{name}", compression=None) as stream:
            stream.write(content)

    return put
