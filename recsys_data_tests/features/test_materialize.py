from datetime import UTC, datetime, timedelta

import pytest

from recsys_data.days import day_number
from recsys_data.errors import UserError
from recsys_data.features import materialize
from recsys_data.features.lake import join_features, open_features
from recsys_data.features.leakage import leaks
from recsys_data.features.materialize import refresh_view, stale_days
from recsys_data.storage.query import data_files, relation
from recsys_data_tests.support.contract_files import load
from recsys_data_tests.support.crashes import Crash
from recsys_data_tests.support.feature_views import CLICKS, USERS, feature, key, view_file
from recsys_data_tests.support.shop import START, Shop

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)


class Views(Shop):
    """A platform with two small views."""

    def refresh(self, name="item_clicks", **options):
        return list(refresh_view(self.open_lake(), self.settings, name, now=NOW, **options))

    def values(self, name="item_clicks"):
        table = self.open_lake().table(name)
        with open_features() as connection:
            found = connection.sql(f"FROM ({relation(table, data_files(table))}) ORDER BY ALL")
            return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]

    def direct(self, name="item_clicks"):
        """The values of the same entities and moments, joined from events instead of tiles."""
        lake = self.open_lake()
        view = self.contracts[name].view
        keys = ", ".join(view.entity)
        table = lake.table(name)
        with open_features() as connection:
            stored = relation(table, data_files(table))
            spine = connection.sql(f"SELECT {keys}, feature_ts FROM ({stored}) ORDER BY ALL")
            joined = join_features(lake, connection, spine, [name], known="event_time", timestamp="feature_ts")
            return [row[:-1] for row in joined.fetchall()]


@pytest.fixture(scope="module")
def contracts(tmp_path_factory):
    return load(tmp_path_factory.mktemp("contracts"), CLICKS, USERS)


@pytest.fixture
def shop(tmp_path, contracts):
    made = Views(tmp_path, contracts, partitions=1)
    yield made
    made.close()


def test_values_are_those_of_the_end_of_each_day_on_which_something_happened(shop):
    shop.happen((1, "view", "u1", "a"), (23.5, "click", "u1", "a"), (30, "purchase", "u2", "a", {"value": 5.5}))
    shop.happen((30.1, "view", "u3", "b"))
    (update,) = shop.refresh()
    assert [day - day_number("2026-01-10") for day in update.days] == [0, 1]
    first, second, other = shop.values()
    assert first["feature_ts"] == START + timedelta(days=1, microseconds=-1)
    assert (first["clicks_1h"], first["events_7d"], first["spent"], first["share"]) == (1, 2, None, 0.5)
    assert (second["clicks_1h"], second["events_7d"], second["spent"], second["users"]) == (0, 3, 5.5, 2)
    assert (second["last_type"], second["recent"]) == ("purchase", ["u2", "u1"])
    assert (other["item_id"], other["events_7d"]) == ("b", 1)


def test_what_is_merged_from_tiles_equals_what_is_joined_from_events(shop):
    kinds = ("view", "click", "purchase", "refund")
    shop.happen(
        *(
            (n * 1.7 % 200, kinds[n % 4], f"u{n % 7}", f"i{n % 5}", {"value": n / 7} if n % 4 > 1 else {})
            for n in range(300)
        )
    )
    shop.refresh()
    shop.refresh("user_events")
    for name in ("item_clicks", "user_events"):
        stored = [tuple(row.values()) for row in shop.values(name)]
        assert stored == shop.direct(name)
        assert len(stored) > 30


def test_a_late_event_changes_the_features_of_its_own_day_and_of_no_other(shop):
    shop.happen((1, "click", "u1", "a"), (25, "click", "u1", "a"), (49, "click", "u1", "a"))
    shop.refresh()
    assert stale_days(shop.open_lake(), "item_clicks") == []
    shop.happen((26, "click", "u2", "a"))
    (update,) = shop.refresh()
    assert update.days == [day_number("2026-01-11")]
    assert [row["events_7d"] for row in shop.values()] == [1, 3, 3]


def test_nothing_is_computed_twice_and_only_what_is_asked_for(shop):
    shop.happen((1, "view", "u1", "a"), (25, "view", "u1", "a"))
    assert [one.days for one in shop.refresh(days=[day_number("2026-01-11")])] == [[day_number("2026-01-11")]]
    assert [one.days for one in shop.refresh()] == [[day_number("2026-01-10")]]
    assert shop.refresh() == []


@pytest.mark.parametrize("days", [None, [day_number("2026-01-12")]])
def test_values_see_all_earlier_days_however_few_are_computed_at_once(shop, monkeypatch, days):
    monkeypatch.setattr(materialize, "CHUNK_ROWS", 1)
    shop.happen((1, "click", "u1", "a"), (25, "click", "u2", "a"), (49, "click", "u3", "a"))
    shop.refresh(days=days)
    stored = [tuple(row.values()) for row in shop.values()]
    assert stored == shop.direct()
    assert stored[-1][3] == 3


def test_the_current_day_has_the_values_of_now(shop):
    shop.happen((251.9, "click", "u1", "a"), (255, "click", "u1", "a"))
    shop.refresh()
    (row,) = shop.values()
    assert row["feature_ts"] == NOW
    assert (row["clicks_1h"], row["events_7d"]) == (1, 1)


def test_a_changed_view_is_computed_again_for_all_days(shop, tmp_path):
    shop.happen((1, "view", "u1", "a"), (25, "view", "u1", "a"))
    shop.refresh()
    changed = view_file("item_clicks", key("item_id"), feature("views", function="count", filter="type = 'view'"))
    shop.contracts = load(tmp_path / "changed", changed, USERS)
    assert [len(one.days) for one in shop.refresh()] == [2]
    assert [(row["views"], len(row)) for row in shop.values()] == [(1, 3), (2, 3)]


@pytest.mark.parametrize("survived", [0, 1])
def test_a_crash_between_the_commits_of_tiles_and_values_is_made_good(shop, monkeypatch, survived):
    shop.happen((1, "view", "u1", "a"), (25, "click", "u1", "a"))
    commits = []

    def dies(*args, **kwargs):
        if len(commits) == survived:
            raise Crash
        commits.append(compare_and_set(*args, **kwargs))

    compare_and_set = materialize.compare_and_set
    monkeypatch.setattr(materialize, "compare_and_set", dies)
    with pytest.raises(Crash):
        shop.refresh()
    monkeypatch.undo()
    assert len(stale_days(shop.open_lake(), "item_clicks")) == 2
    shop.refresh()
    assert [tuple(row.values()) for row in shop.values()] == shop.direct()


def test_events_of_before_a_login_count_for_the_user_since_the_merge(shop):
    shop.happen(
        (1, "view", None, "a", {"anonymous_id": "x"}),
        (2, "view", "u1", "a", {"anonymous_id": "x"}),
        (30, "identify", "u1", None, {"anonymous_id": "x"}),
        (31, "view", None, "a", {"anonymous_id": "x"}),
    )
    shop.refresh("user_events")
    assert [(row["user_id"], row["events"]) for row in shop.values("user_events")] == [("u1", 1), ("u1", 3)]
    assert [tuple(row.values()) for row in shop.values("user_events")] == shop.direct("user_events")


def test_views_of_a_history_have_values_of_the_days_on_which_it_changed(tmp_path):
    from recsys_data.ingestion.batch.history.update import refresh_history
    from recsys_data_tests.support.snapshots import Batch

    prices = view_file(
        "item_prices",
        key("item_id"),
        feature("price", "number", source="item_catalog_history.price"),
        feature("double", "number", expression="price * 2"),
        of="item_catalog_history",
    )
    batch = Batch.of(tmp_path, prices)
    for day, price in (("2026-01-10", 1), ("2026-01-11", 1), ("2026-01-12", 3)):
        batch.land("item_catalog", day, [{"item_id": "a", "title": "A", "price": price, "currency": "EUR"}])
        batch.take("item_catalog", day, accept=True)
    refresh_history(batch.lake, "item_catalog", batch.settings.staging_dir)
    for _ in refresh_view(batch.lake, batch.settings, "item_prices"):
        pass
    rows = batch.rows("item_prices")
    assert [(row["price"], row["double"]) for row in rows] == [(1.0, 2.0), (3.0, 6.0)]
    assert stale_days(batch.lake, "item_prices") == []


def test_a_changed_state_makes_the_days_stale_whose_windows_it_is_in(tmp_path):
    from recsys_data.ingestion.batch.history.update import refresh_history
    from recsys_data_tests.support.snapshots import Batch

    window = {"rolling": "2d"}
    prices = view_file(
        "item_prices",
        key("item_id"),
        feature("usual", "number", source="item_catalog_history.price", function="median", window=window),
        of="item_catalog_history",
    )
    batch = Batch.of(tmp_path, prices)

    def land(day, price, item="a"):
        batch.land("item_catalog", day, [{"item_id": item, "title": "A", "price": price, "currency": "EUR"}])
        batch.take("item_catalog", day, accept=True)

    def refreshed():
        refresh_history(batch.lake, "item_catalog", batch.settings.staging_dir)
        days = [day for update in refresh_view(batch.lake, batch.settings, "item_prices") for day in update.days]
        return sorted(day - day_number("2026-01-10") for day in days)

    for day, price in (("2026-01-10", 1), ("2026-01-12", 3), ("2026-01-20", 4)):
        land(day, price)
    first = refreshed()
    # A snapshot is known at the end of its day.
    assert first == [1, 3, 11]
    land("2026-01-11", 2)
    # The first state ends earlier, and the window of the last day begins after all of this.
    assert refreshed() == [1, 2, 3]
    assert [row["usual"] for row in batch.rows("item_prices")] == [1.0, 1.0, 2.0, 3.0]
    assert stale_days(batch.lake, "item_prices") == []


def test_an_unknown_view_is_refused_with_those_there_are(shop):
    with pytest.raises(UserError, match="'interactions' is not a feature view; choose one of .*item_clicks"):
        shop.refresh("interactions")


def test_a_sound_view_does_not_leak(shop):
    shop.happen(*((n * 7, "click", f"u{n % 3}", f"i{n % 4}") for n in range(60)))
    shop.refresh()
    assert leaks(shop.open_lake(), "item_clicks", known="event_time") == []


def test_a_view_that_sees_events_of_later_leaks(shop, monkeypatch):
    shop.happen(*((n * 7, "click", f"u{n % 3}", f"i{n % 4}") for n in range(60)))
    shop.refresh()
    monkeypatch.setattr(
        "recsys_data.features.intervals.Span.of_row", lambda span: ('"#ts" - 90000000000', "NULL::BIGINT")
    )
    found = leaks(shop.open_lake(), "item_clicks", known="event_time")
    assert "events_7d" in {one.feature for one in found}
    assert all(one.value != one.value_then for one in found)


def test_a_view_that_sees_a_catalogue_of_later_leaks(tmp_path, monkeypatch):
    from recsys_data.features.lake import FeatureSources
    from recsys_data.ingestion.batch.history.update import refresh_history
    from recsys_data_tests.support.snapshots import Batch

    prices = view_file(
        "item_prices",
        key("item_id"),
        feature("price", "number", source="item_catalog_history.price"),
        of="item_catalog_history",
    )
    batch = Batch.of(tmp_path, prices)
    for day, price in (("2026-01-10", 1), ("2026-01-11", 2), ("2026-01-12", 3)):
        batch.land("item_catalog", day, [{"item_id": "a", "title": "A", "price": price, "currency": "EUR"}])
        batch.take("item_catalog", day, accept=True)
    refresh_history(batch.lake, "item_catalog", batch.settings.staging_dir)
    for _ in refresh_view(batch.lake, batch.settings, "item_prices"):
        pass
    assert leaks(batch.lake, "item_prices") == []
    stored = FeatureSources._stored

    def a_day_early(self, dataset, keep):
        if dataset != "item_catalog_history":
            return stored(self, dataset, keep)
        early = "valid_from - INTERVAL 1 DAY AS valid_from, valid_to - INTERVAL 1 DAY AS valid_to"
        return f"SELECT * REPLACE ({early}) FROM ({stored(self, dataset, keep)})"

    monkeypatch.setattr(FeatureSources, "_stored", a_day_early)
    assert [one.feature for one in leaks(batch.lake, "item_prices")] == ["price"]


def test_a_join_of_no_views_is_refused_with_those_there_are(shop):
    with open_features() as connection, pytest.raises(UserError, match="No feature view is named; choose from .*item_"):
        join_features(shop.lake, connection, connection.sql("SELECT 1 AS x"), [])
