import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion.streaming import consumer as drain
from recsys_data.ingestion.streaming.decoding import decoder as decode
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data_tests.support.decoding import FIRST_DAY, MAX_EVENT_BYTES, Decoding
from recsys_data_tests.support.draining import Platform

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
    """Makes platforms, empty ones of the built-in contracts unless told otherwise."""
    made: list[Platform] = []

    def decoder(wanted: Mapping[str, Contract], *other: Any) -> Decoder:
        return next(decoders) if wanted is contracts else Decoder(wanted, *other)

    def make(folder: Path | None = None, given: Mapping[str, Contract] = contracts, **other: Any) -> Platform:
        made.append(Platform(folder or tmp_path_factory.mktemp("platform"), given, **other))
        return made[-1]

    monkeypatch.setattr(drain, "Decoder", decoder)

    yield make
    for platform in made:
        platform.close()


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    return make_platform()
