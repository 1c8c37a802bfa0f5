"""How much of the traffic is of bots."""

from datetime import UTC, datetime

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.defs.monitoring import bots_check
from recsys_data.monitoring.bots import BotDay, bots, surge
from recsys_data_tests.support.shop import START, Shop

NOW = datetime(2026, 1, 14, 9, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path / "data", load_contracts(), partitions=1)
    yield made
    made.close()


def day(number, share):
    return BotDay(f"2026-01-{number:02d}", 1000, 0, 100, round(1000 * share), 0, 3, 1)


def test_bots_are_counted_by_day(shop):
    crawler = {"context": {"user_agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}}
    shop.happen(
        *((n / 10, "view", f"u{n}", "i1", {}) for n in range(8)),
        (1, "impression", "u1", "i1", {"list_id": "home"}),
        (1, "view", "b1", "i1", crawler),
        (2, "impression", "b1", "i2", {"list_id": "home"}),
        *((24 + n / 100, "click", "fast", "i1", {}) for n in range(501)),
        (25, "view", "u1", "i1", {}),
    )
    first, second = bots(shop.open_lake(), now=NOW)
    assert (first.day, first.events, first.impressions, first.visitors) == ("2026-01-10", 11, 2, 9)
    assert (first.bot_events, first.bot_impressions, first.bot_visitors, first.crawlers) == (2, 1, 1, 1)
    assert (second.events, second.bot_events, second.bot_visitors, second.crawlers) == (502, 501, 1, 0)
    # The day that goes on is not counted.
    assert [one.day for one in bots(shop.open_lake(), now=START.replace(hour=30 % 24, day=11))] == ["2026-01-10"]


def test_without_events_there_are_no_bots(shop):
    assert bots(shop.open_lake(), now=NOW) == []
    assert bots_check.result_of([]).passed


@pytest.mark.parametrize(
    ("shares", "came"),
    [
        ((0.02, 0.02, 0.02, 0.02), False),
        ((0.02, 0.02, 0.02, 0.2), True),
        ((0.001, 0.001, 0.001, 0.04), False),
        ((0.3, 0.3, 0.3, 0.35), False),
        ((0.5,), True),
    ],
)
def test_a_surge_is_reported_that_is_large_and_unusual(shares, came):
    found = [day(number, share) for number, share in enumerate(shares, 1)]
    assert (surge(found) is not None) is came
    result = bots_check.result_of(found)
    assert result.passed is not came
    assert result.metadata["bots' share of events"].value == pytest.approx(shares[-1])
