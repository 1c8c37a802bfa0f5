"""Event logs to test: every backend stands behind one fixture, so that one suite runs over all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.ingestion.streaming.log.kafka.log import KafkaLog
from recsys_data_tests.support.kafka.topics import FAST, topic_url

OpenLog = Callable[[], EventLog]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
def event_log_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], OpenLog]]:
    """Makes empty logs; what it returns opens that log, each time as one more client of it.

    A log has at least two partitions. Every client is closed at the end.
    """
    clients: list[EventLog] = []
    backends: dict[str, Callable[[], OpenLog]] = {
        "embedded": lambda: _embedded(tmp_path_factory.mktemp("log")),
        "kafka": _kafka,
    }

    def remembered(open_log: OpenLog) -> OpenLog:
        def open_and_remember() -> EventLog:
            clients.append(open_log())
            return clients[-1]

        return open_and_remember

    yield lambda: remembered(backends[request.param]())
    for client in clients:
        client.close()


@pytest.fixture
def open_log(event_log_factory: Callable[[], OpenLog]) -> OpenLog:
    """Opens one log, empty at first."""
    return event_log_factory()


def _embedded(folder: Path) -> OpenLog:
    return lambda: EmbeddedLog(folder / "log", partitions=2, segment_bytes=300)


def _kafka() -> OpenLog:
    url = topic_url(f"{FAST}&message.max.bytes=5000000")
    return lambda: KafkaLog(url, partitions=2)
