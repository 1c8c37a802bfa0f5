"""An event is stored once, however often, wherever and whenever it is delivered."""

import shutil

import pytest

from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.platform import Platform, identify, view


def test_an_event_delivered_twice_in_a_batch_is_stored_once_as_first_delivered(platform: Platform) -> None:
    platform.append([view("a", query="first"), view("b"), view("a", query="second")])
    platform.consume()
    assert platform.counts() == (3, 2, 1, 0)
    assert {row["event_id"]: row["query"] for row in platform.rows()} == {"a": "first", "b": None}
    platform.assert_whole()


def test_an_event_delivered_again_in_later_batches_by_other_processes_is_dropped(platform: Platform) -> None:
    for _ in range(3):
        platform.append([view("a"), identify("b"), view("c", context={"page": "p"})])
        platform.consume()
    assert platform.counts() == (9, 3, 6, 0)
    assert (platform.ids(), platform.ids("identities"), platform.ids("contexts")) == (["a", "c"], ["b"], ["c"])
    platform.assert_whole()


def test_an_event_delivered_to_two_partitions_is_stored_once(platform: Platform) -> None:
    platform.append([view("a"), identify("b"), view("c")], writer=0)
    platform.append([view("c"), identify("b"), view("a"), view("d")], writer=1)
    platform.consume()
    assert platform.counts() == (7, 4, 3, 0)
    platform.assert_whole()


def test_an_event_is_known_by_its_id_alone(platform: Platform) -> None:
    platform.append([view("a", day=1)])
    platform.consume()
    platform.append([view("a", day=2), view("a", day=1, item_id="i2"), identify("a"), view("A"), view("a ")])
    platform.consume()
    assert platform.counts() == (6, 3, 3, 0)
    assert platform.ids() == ["A", "a", "a "]
    assert platform.ids("identities") == []
    platform.assert_whole()


def test_a_rejected_delivery_does_not_stand_in_the_way_of_a_good_one(platform: Platform) -> None:
    bad = [view("a", item_id=""), view("a", event_ts="yesterday"), view("a", quantity="7"), view("a")[:-1]]
    platform.append([*bad, view("a"), view("a", item_id="")])
    platform.consume()
    assert platform.counts() == (6, 1, 0, 5)
    platform.append([view("a", item_id=""), view("a")])
    platform.consume()
    assert platform.counts() == (8, 1, 1, 6)
    platform.assert_whole()


def test_events_without_an_id_are_no_duplicates_of_each_other(platform: Platform) -> None:
    platform.append([view(""), view(""), view("a"), view("b")])
    platform.consume()
    platform.append([view("b"), view(""), view("c")])
    platform.consume()
    assert platform.counts() == (7, 3, 1, 3)
    platform.assert_whole()


@pytest.mark.parametrize("cache", ["deleted", "of the first drain", "of another lake"])
def test_redelivery_is_noticed_after_a_restart_whatever_became_of_the_cache(
    platform: Platform, make_platform: MakePlatform, cache: str
) -> None:
    seen = platform.settings.data_dir / "ingest" / "seen"
    platform.append([view("a"), identify("b")])
    platform.consume()
    first = shutil.copytree(seen, seen.with_name("first"))
    platform.append([view("c"), identify("d")], writer=1)
    platform.append([view("e")])
    platform.consume()
    _harm(cache, platform, make_platform, first)
    platform.append([view(one) for one in "face"], writer=1)
    platform.append([identify("b"), identify("d"), view("g")], writer=0)
    platform.consume()
    assert platform.counts() == (12, 7, 5, 0)
    platform.assert_whole()


def _harm(cache: str, platform: Platform, make_platform: MakePlatform, first) -> None:
    seen = platform.settings.data_dir / "ingest" / "seen"
    if cache == "of another lake":
        other = make_platform()
        other.append([view(f"x{number}") for number in range(90)])
        other.consume()
        first = other.settings.data_dir / "ingest" / "seen"
    shutil.rmtree(seen)
    if cache != "deleted":
        shutil.copytree(first, seen)


def test_a_cache_that_was_saved_before_a_partition_was_used_does_not_hide_its_ids(platform: Platform) -> None:
    platform.append([view(f"a{number}") for number in range(50)], writer=0)
    platform.consume()
    seen = platform.settings.data_dir / "ingest" / "seen"
    saved = shutil.copytree(seen, seen.with_name("saved"))
    platform.append([view("b")], writer=1)
    platform.consume()
    shutil.rmtree(seen)
    saved.rename(seen)
    platform.append([view("b"), view("a0")], writer=1)
    platform.consume()
    assert platform.counts() == (53, 51, 2, 0)
    platform.assert_whole()
