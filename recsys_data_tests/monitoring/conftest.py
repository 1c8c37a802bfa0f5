from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.ingestion.streaming.log.received_at import with_received_at
from recsys_data.settings import Settings
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.storage.tables import Lake, open_lake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(dir=str(tmp_path))


@pytest.fixture
def log(settings: Settings) -> Iterator[EventLog]:
    found = open_log(settings)
    yield found
    found.close()


@pytest.fixture(scope="session")
def contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture
def lake(settings: Settings, contracts: Mapping[str, Contract]) -> Lake:
    return open_lake(settings, contracts)


@pytest.fixture
def traffic(log: EventLog) -> Callable[..., dict]:
    """Append simulated events to the log, and give the truth about them."""

    def traffic(events: int, seed: int = 0) -> dict:
        truth = {}
        for batch in simulate(Plan(events=events, seed=seed)):
            log.append(with_received_at(batch.lines, datetime.now(UTC)))
            truth = batch.truth.to_dict()
        return truth

    return traffic


@pytest.fixture
def ingest(log: EventLog, lake: Lake, settings: Settings) -> Callable[[], None]:
    """Store what waits in the log."""

    def ingest() -> None:
        for _ in consume(log, lake, settings, Until()):
            pass

    return ingest
