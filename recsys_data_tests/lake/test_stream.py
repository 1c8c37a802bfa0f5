"""The stream into a lake, wherever it is: rows, ledger, SQL, time travel, status, replay, retention."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from recsys_data.storage.guard.read_only import answered
from recsys_data_tests.support.lakes import Place
from recsys_data_tests.support.platform import Platform, identify, view

pytestmark = pytest.mark.integration


@pytest.fixture
def platform(make_platform: Callable[..., Platform], place: Place) -> Platform:
    return make_platform(**place._asdict())


def count(platform: Platform, what: str, as_of: str | None = None) -> int:
    with answered(platform.open_lake(), f"SELECT count(*) AS n FROM {what}", as_of) as result:
        return next(iter(result.batches))["n"][0].as_py()


def test_each_line_has_one_outcome_and_sql_sees_it(platform: Platform) -> None:
    platform.append([view("a"), view("b", day=2), view("a"), b"not json", identify("i")])
    platform.append([view(f"c{n}", day=1 + n % 20) for n in range(200)], writer=1)
    platform.consume()
    first = datetime.now(UTC)
    time.sleep(0.01)
    platform.append([view("d"), view("b", day=2)])
    platform.consume()
    ledger = platform.ledger()
    assert ledger.balanced
    assert (ledger.read, ledger.accepted, ledger.duplicates, ledger.dead_letters) == (207, 204, 2, 1)
    assert count(platform, "interactions") == 203
    assert count(platform, "interactions WHERE event_id LIKE 'c%'") == 200
    assert count(platform, "dead_letters") == 1
    assert count(platform, "interactions", first.isoformat()) == 202
