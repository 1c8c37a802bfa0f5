"""Stores of every backend, empty, each to be opened as often as a test needs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from recsys_data.serving.online_store.lmdb import LmdbStore
from recsys_data.serving.online_store.protocol import OnlineStore

# Opens the store of the test once more.
OpenStore = Callable[[], OnlineStore]


@pytest.fixture(params=["lmdb"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    with ExitStack() as stack:
        opened: list[OnlineStore] = []

        def keep(make: OpenStore) -> OnlineStore:
            opened.append(store := make())
            stack.callback(store.close)
            return store

        yield lambda: keep(lambda: LmdbStore(tmp_path / "online"))


@pytest.fixture
def store(open_store: OpenStore) -> OnlineStore:
    return open_store()
