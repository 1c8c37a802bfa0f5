import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data_tests.support.decoding import FIRST_DAY, MAX_EVENT_BYTES, Decoding
from recsys_data_tests.support.platform import THREADS, Platform

MakePlatform = Callable[..., Platform]


@pytest.fixture(scope="session")
def contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture(scope="session")
def any_decoding(contracts: Mapping[str, Contract]) -> Decoding:
    return Decoding(contracts)


@pytest.fixture(scope="session")
def decoding(contracts: Mapping[str, Contract]) -> Decoding:
    """A decoder that takes the vectorised ways however few lines there are."""
    return Decoding(contracts, ConsumerLimits(statement_lines=1))


@pytest.fixture(scope="session")
def sessions(contracts: Mapping[str, Contract]) -> Iterator[EventSession]:
    """Sessions by turns, as many as a consumer uses, because making one takes longer than most tests."""
    schema = EventSchema(contracts)
    return itertools.cycle([EventSession(schema, FIRST_DAY) for _ in range(THREADS + 1)])


@pytest.fixture
def decoder(sessions: Iterator[EventSession]) -> Decoder:
    return Decoder(next(sessions), MAX_EVENT_BYTES)


@pytest.fixture
def make_platform(
    tmp_path_factory: pytest.TempPathFactory,
    contracts: Mapping[str, Contract],
    sessions: Iterator[EventSession],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakePlatform]:
    """Makes platforms, empty ones of the built-in contracts unless stated otherwise."""
    made: list[Platform] = []

    def session(schema: EventSchema, first_day: date) -> EventSession:
        shared = schema.contracts == EventSchema(contracts).contracts and first_day == FIRST_DAY
        return next(sessions) if shared else EventSession(schema, first_day)

    def make(folder: Path | None = None, given: Mapping[str, Contract] = contracts, **other: Any) -> Platform:
        made.append(Platform(folder or tmp_path_factory.mktemp("platform"), given, **other))
        return made[-1]

    monkeypatch.setattr(consumer, "EventSession", session)

    yield make
    for platform in made:
        platform.close()


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    return make_platform()
