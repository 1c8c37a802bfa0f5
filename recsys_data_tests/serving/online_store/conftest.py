"""Stores of every backend, empty, each to be opened as often as a test needs."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data_tests.support.online_stores import OpenStore, opener


@pytest.fixture(
    params=["lmdb", "redis in process", pytest.param("redis", marks=pytest.mark.integration), "dynamodb"],
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    with ExitStack() as stack:
        make = opener(request.param, tmp_path, stack)

        def opened() -> OnlineStore:
            store = make()
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def store(open_store: OpenStore) -> OnlineStore:
    return open_store()
