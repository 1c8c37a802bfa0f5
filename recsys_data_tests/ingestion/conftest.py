import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion import decode, drain
from recsys_data.ingestion.decode import Decoder
from recsys_data_tests.ingestion.decoding import FIRST_DAY, MAX_EVENT_BYTES, Decoding
from recsys_data_tests.ingestion.draining import Platform

MakePlatform = Callable[..., Platform]


@pytest.fixture(scope="session")
def contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture(scope="session")
def any_decoding(contracts: Mapping[str, Contract]) -> Decoding:
    return Decoding(contracts)


@pytest.fixture
def decoding(any_decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> Decoding:
    """A decoder that takes the vectorised ways however few lines there are."""
    monkeypatch.setattr(decode, "WORTH_A_STATEMENT", 1)
    return any_decoding


@pytest.fixture(scope="session")
def decoders(contracts: Mapping[str, Contract]) -> Iterator[Decoder]:
    """Decoders by turns, as many as a drain has threads, for making one takes longer than most tests."""
    return itertools.cycle([Decoder(contracts, FIRST_DAY, MAX_EVENT_BYTES) for _ in range(drain.THREADS)])


@pytest.fixture
def make_platform(
    tmp_path_factory: pytest.TempPathFactory,
    contracts: Mapping[str, Contract],
    decoders: Iterator[Decoder],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakePlatform]:
    """Makes empty platforms with the built-in contracts."""
    monkeypatch.setattr(drain, "Decoder", lambda *_: next(decoders))
    made: list[Platform] = []

    def make(folder: Path | None = None, **given: object) -> Platform:
        made.append(Platform(folder or tmp_path_factory.mktemp("platform"), contracts, **given))
        return made[-1]

    yield make
    for platform in made:
        platform.close()


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    return make_platform()
