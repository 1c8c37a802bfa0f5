"""Rows that clients push one by one: the state that a day's snapshot is made of."""

import json
from datetime import date

import pytest

from recsys_data.ingestion.batch.pushed import PushedRows
from recsys_data.settings import Settings

KEYS = {"item_catalog": "item_id", "user_profiles": "user_id"}
DAY = date(2026, 1, 5)


@pytest.fixture
def settings(tmp_path):
    return Settings(dir=str(tmp_path))


@pytest.fixture
def pushed(settings):
    rows = PushedRows(settings)
    yield rows
    rows.close()


def landed(settings, dataset, day=DAY):
    path = settings.landing_dir / dataset / day.isoformat() / "pushed.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_of_a_day_is_the_whole_state(settings, pushed):
    pushed.put("item_catalog", {"b": {"title": "B"}, "a": {"title": "A", "price": 2}})
    pushed.put("item_catalog", {"a": {"brand": "x"}}, merge=True)
    pushed.put("item_catalog", {"b": {"brand": "y"}, "c": {"title": "C"}})
    pushed.put("item_catalog", {"c": None})
    assert pushed.publish(KEYS, DAY) == ["item_catalog"]
    assert landed(settings, "item_catalog") == [
        {"item_id": "a", "title": "A", "price": 2, "brand": "x"},
        {"item_id": "b", "title": "b", "brand": "y"},
    ]
    assert (pushed.get("item_catalog", "a") or {})["brand"] == "x"
    assert pushed.get("item_catalog", "c") is None


def test_a_state_is_written_again_when_it_changed_and_on_each_new_day(settings, pushed):
    pushed.put("user_profiles", {"u": {}})
    assert [pushed.publish(KEYS, DAY) for _ in range(2)] == [["user_profiles"], []]
    pushed.put("user_profiles", {"u": {"country": "DE"}})
    assert pushed.publish(KEYS, DAY) == ["user_profiles"]
    assert pushed.publish(KEYS, date(2026, 1, 6)) == ["user_profiles"]
    assert landed(settings, "user_profiles", date(2026, 1, 6)) == [{"user_id": "u", "country": "DE"}]


def test_deleted_and_unavailable_items_are_withdrawn_until_they_come_back(pushed):
    pushed.put("item_catalog", {"a": None, "b": {"available": False}, "c": {"available": True}, "d": {}})
    assert pushed.withdrawn("item_catalog") == {"a", "b"}
    pushed.put("item_catalog", {"a": {}, "b": {"available": True}})
    assert pushed.withdrawn("item_catalog") == frozenset()


def test_several_processes_share_the_state(settings, pushed):
    other = PushedRows(settings)
    pushed.put("item_catalog", {"a": {"available": False}})
    assert other.withdrawn("item_catalog") == {"a"}
    other.put("item_catalog", {"a": {"available": True}})
    assert pushed.withdrawn("item_catalog") == frozenset()
    other.close()


def test_nothing_is_written_where_nothing_was_pushed(settings, pushed):
    assert pushed.publish(KEYS, DAY) == []
    assert (pushed.get("item_catalog", "a"), pushed.page("item_catalog", "", 5)) == (None, [])
    assert not settings.pushed_dir.exists()
