"""What models show, and what comes of it, against numbers counted by hand."""

from datetime import UTC, datetime

import msgspec
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.monitoring.feedback import Rate, falls, feedback
from recsys_data_tests.support.shop import Shop
from recsys_data_tests.support.trade import store_catalogue

LATER = datetime(2026, 1, 20, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path, load_contracts(), partitions=1)


def shown(hour, user, items, model, recommendation):
    return [(hour, "impression", user, item, {"recommendation_id": recommendation, "model": model}) for item in items]


def test_what_a_model_showed_and_what_came_of_it(shop):
    shop.happen(
        *[(hour, "view", "u9", "i1") for hour in (1, 2, 3)],
        (4, "view", "u9", "i2"),
        *shown(24, "u1", ["i1", "i2"], "a", "r1"),
        *shown(25, "u2", ["i1", "i3"], "a", "r2"),
        *shown(25, "u1", ["i1"], "b", "r3"),
        (24.5, "click", "u1", "i1", {"recommendation_id": "r1"}),
        (24.6, "click", "u1", "i1", {"recommendation_id": "r1"}),
        (26, "purchase", "u2", "i3", {"recommendation_id": "r2"}),
        # Of another item, of another recommendation, and too late.
        (26, "click", "u2", "i2", {"recommendation_id": "r2"}),
        (26, "click", "u1", "i1", {"recommendation_id": "r9"}),
        (50, "click", "u1", "i1", {"recommendation_id": "r3"}),
    )
    a, b = feedback(shop.open_lake(), shop.settings, 1, "2026-01-11", LATER)
    assert (a.day, a.model, a.impressions, a.lists, a.visitors, a.items) == ("2026-01-11", "a", 4, 2, 2, 3)
    assert (a.clicks.count, a.clicks.rate, a.purchases.count, a.purchases.rate) == (1, 0.25, 1, 0.25)
    # Residuals of the visitors are +0.5 and -0.5 of 4 impressions.
    assert a.clicks.high == pytest.approx(0.25 + 1.96 * (2 * 0.5 / 16) ** 0.5)
    assert a.clicks.low == 0
    # One, one and two impressions: (2 * (1 * 1 + 2 * 1 + 3 * 2) / (3 * 4)) - 4 / 3.
    assert a.gini == pytest.approx(1 / 6)
    assert a.top_share == 0.5
    # Three, one and no actions in the week before, of which an item of the three has four thirds on average.
    assert a.popularity == pytest.approx((3 + 1 + 3 + 0) / 4 / (4 / 3))
    assert (a.coverage, a.new_share, a.matured) == (None, None, True)
    assert (b.impressions, b.clicks.count, b.clicks.low) == (1, 0, 0.0)


def test_coverage_counts_available_items_and_new_ones_are_told_from_old(shop):
    lake = shop.open_lake()
    # The catalogue begins with items 0 to 9; ten more come two days later. Every tenth is not available.
    available = "n % 10 > 0"
    store_catalogue(lake, range(2), a_day=10, available=available)
    store_catalogue(lake, range(2, 3), a_day=20, available=available)
    refresh_history(lake, "item_catalog", shop.settings.lake_dir / "staging", 200_000_000)
    shop.happen(*shown(24, "u1", ["i1", "i2", "i15"], "a", "r1"), *shown(25, "u2", ["i1", "gone"], "a", "r2"))
    (found,) = feedback(shop.open_lake(), shop.settings, 1, "2026-01-11", LATER)
    assert found.coverage == pytest.approx(3 / 18)
    assert found.new_share == pytest.approx(1 / 5)
    # Nineteen items, of which four were shown.
    assert found.gini == pytest.approx((16 + 17 + 18 + 19 * 2) * 2 / (19 * 5) - 20 / 19)
    assert found.top_share == pytest.approx(2 / 5)


def test_days_whose_labels_can_still_come_are_not_final(shop):
    shop.happen(*shown(24, "u1", ["i1"], "a", "r1"), *shown(48, "u1", ["i1"], "a", "r2"))
    found = feedback(shop.open_lake(), shop.settings, 2, "2026-01-12", datetime(2026, 1, 13, 5, tzinfo=UTC))
    assert [(one.day, one.matured) for one in found] == [("2026-01-11", True), ("2026-01-12", False)]


def test_without_impressions_of_recommendations_there_is_nothing(shop):
    shop.happen((24, "impression", "u1", "i1"), (25, "click", "u1", "i1"))
    assert feedback(shop.open_lake(), shop.settings, 7, "2026-01-12", LATER) == []


def test_a_model_that_is_clicked_less_is_reported_and_one_that_varies_is_not(shop):
    shop.happen(*shown(24, "u1", ["i1"], "a", "r1"))
    (one,) = feedback(shop.open_lake(), shop.settings, 1, "2026-01-11", LATER)

    def days(*rates):
        return [
            msgspec.structs.replace(
                one,
                day=f"2026-01-{number:02}",
                impressions=1000,
                clicks=Rate(round(1000 * rate), rate, rate - 0.01, rate + 0.01),
            )
            for number, rate in enumerate(rates, 1)
        ]

    assert falls(days(0.1, 0.11, 0.1, 0.1, 0.09)) == []
    assert falls(days(0.1, 0.11)) == []
    (fall,) = falls(days(0.1, 0.11, 0.1, 0.1, 0.05))
    assert (fall.day, fall.model, fall.outcome, fall.now) == ("2026-01-05", "a", "clicks", 0.05)
    assert fall.before == pytest.approx(0.1025)
