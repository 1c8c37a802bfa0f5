"""What visitors met, followed in the lake."""

from datetime import date

from recsys_data.serving.answers import Recent, Request
from recsys_data.serving.visitors import ITEMS_KEPT, LakeFollower, RecentItems
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.query import data_files
from recsys_data_tests.support.shop import START


def test_items_are_kept_newest_last_and_once():
    visitors = RecentItems()
    visitors.add([("u", None, None, item) for item in ("a", "b", "a", "c")])
    assert visitors.recent_items(Request(user_id="u")) == Recent(("b", "a", "c"), ())
    visitors.add([("u", None, None, f"i{n}") for n in range(200)])
    assert visitors.recent_items(Request(user_id="u")).items == tuple(f"i{n}" for n in range(200 - ITEMS_KEPT, 200))


def test_user_device_and_session_are_known_together():
    visitors = RecentItems()
    visitors.add([(None, "d", "s1", "a"), ("u", None, None, "b"), (None, "d", "s2", "c")])
    assert visitors.recent_items(Request(user_id="u", anonymous_id="d", session_id="s2")) == Recent(
        ("b", "a", "c"), ("c",)
    )
    assert visitors.recent_items(Request(session_id="other")) == Recent()
    # Ids of different kinds do not meet.
    assert visitors.recent_items(Request(user_id="d")) == Recent()


def test_memory_is_bounded_and_the_latest_stay():
    visitors = RecentItems(most=10)
    visitors.add([(f"u{n}", None, None, "a") for n in range(50)])
    visitors.add([("u41", None, None, "b"), ("new", None, None, "a")])
    assert len(visitors) == 10
    assert visitors.recent_items(Request(user_id="u40")) == Recent()
    assert visitors.recent_items(Request(user_id="u41")).items == ("a", "b")


class Counting(RecentItems):
    """Remembers every row that it got."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def add(self, rows):
        rows = list(rows)
        self.rows += rows
        super().add(rows)


def test_each_row_of_the_lake_is_taken_once_whatever_happens_to_files(shop):
    visitors = Counting()
    shop.happen((0, "view", "u1", "i1"), (0, "impression", "u1", "i2"), (0, "search", "u1", None))
    follower = LakeFollower(shop.open_lake(), visitors)
    follower.refresh()
    for n in range(4):
        shop.happen((n, "click", "u1", f"i{n + 5}"))
        if n % 2:
            follower.refresh()
            follower.refresh()
    before = set(data_files(shop.lake.table("interactions")))
    compact_day(shop.lake.table("interactions"), (START.date() - date(1970, 1, 1)).days)
    assert not before & set(data_files(shop.lake.table("interactions")))
    shop.happen((9, "click", "u1", "i9"))
    follower.refresh()
    assert visitors.rows == [("u1", None, None, f"i{n}") for n in (1, 5, 6, 7, 8, 9)]
    assert follower.positions == shop.ledger().positions
