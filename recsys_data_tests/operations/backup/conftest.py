from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data_tests.operations.backup.state import close
from recsys_data_tests.support.platform import Platform


@pytest.fixture(scope="module")
def contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture
def open_platform(tmp_path: Path, contracts: Mapping[str, Contract]) -> Iterator[Callable[[], Platform]]:
    """Opens the platform in `state`; what was opened is closed at the end."""
    opened: list[Platform] = []

    def open_platform() -> Platform:
        opened.append(Platform(tmp_path / "state", contracts, segment_bytes=20_000))
        return opened[-1]

    yield open_platform
    for platform in opened:
        close(platform)


@pytest.fixture
def platform(open_platform: Callable[[], Platform]) -> Platform:
    return open_platform()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"
