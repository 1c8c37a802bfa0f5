"""Impressions: what was answered is in the lake, once, and answers never wait for it."""

import time
from collections import Counter

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.serving import log as served_log
from recsys_data_tests.serving.conftest import declare, items_of

COLUMNS = ("item_id", "position", "score", "propensity")


class Stubborn(EmbeddedLog):
    """A log that takes appends and reports that it did not, or that refuses them."""

    failures = 0
    reports_failure_after = 0
    seconds = 0.0

    def append(self, lines):
        time.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise Transient("the disk is full")
        appended = super().append(lines)
        if self.reports_failure_after:
            self.reports_failure_after -= 1
            raise Transient("who knows")
        return appended


def stubborn(shop):
    return Stubborn(shop.settings.log_dir, partitions=1, segment_bytes=shop.settings.segment_bytes)


def stored(shop):
    shop.consume()
    return [row for row in shop.rows() if row["type"] == "impression"]


def shown(answer):
    return [(answer["recommendation_id"], *(one[name] for name in COLUMNS)) for one in answer["items"]]


def of_rows(rows):
    found = [(row["recommendation_id"], *(row[name] for name in COLUMNS)) for row in rows]
    return sorted(found, key=lambda one: (one[0], one[2]))


def test_every_item_of_every_answer_is_an_impression_with_its_propensity(shop, serve):
    declare(shop, name="home", exploration=0.5, variants={"a": 0.5, "b": 0.5})
    client = serve(shop)
    answers = [client.recommend(user_id=f"u{n}", session_id=f"s{n}", n=4) for n in range(20)]
    client.stop()
    rows = stored(shop)
    assert of_rows(rows) == sorted((row for one in answers for row in shown(one)), key=lambda one: (one[0], one[2]))
    by_id = {row["event_id"]: row for row in rows}
    for n, answer in enumerate(answers):
        row = by_id[f"{answer['recommendation_id']}-1"]
        assert (row["user_id"], row["session_id"], row["list_id"], row["source"]) == (
            f"u{n}",
            f"s{n}",
            "home",
            "serving",
        )
        assert (row["model"], row["variant"]) == (answer["model"], answer["variant"])
        assert '"reason"' in row["properties"]


def test_a_visitor_without_a_name_is_known_by_session_or_recommendation(shop, serve):
    client = serve(shop)
    nobody, session = client.recommend(n=1), client.recommend(session_id="s", n=1)
    client.stop()
    ids = {row["recommendation_id"]: row["anonymous_id"] for row in stored(shop)}
    assert ids == {nobody["recommendation_id"]: nobody["recommendation_id"], session["recommendation_id"]: "s"}


def test_an_append_that_is_tried_again_is_stored_once(shop, serve, monkeypatch):
    monkeypatch.setattr(served_log, "RETRY_SECONDS", 0.02)
    shop.log.close()
    log = stubborn(shop)
    log.failures, log.reports_failure_after = 2, 2
    client = serve(shop, log)
    answers = [client.recommend(user_id="u1", n=3) for _ in range(3)]
    deadline = time.monotonic() + 20
    while client.get("/health").json()["log"]["queue_bytes"] and time.monotonic() < deadline:
        time.sleep(0.02)
    client.stop()
    assert Counter(row["recommendation_id"] for row in stored(shop)) == {one["recommendation_id"]: 3 for one in answers}
    assert shop.counts()[2] > 0  # duplicates in the log
    assert client.counted("serving_impressions_lost_total") == 0
    log.close()


def test_a_slow_log_does_not_slow_answers_and_everything_is_flushed_at_the_end(shop, serve):
    shop.log.close()
    log = stubborn(shop)
    log.seconds = 0.5
    client = serve(shop, log)
    begun = time.monotonic()
    answers = [client.recommend(user_id="u1", n=3) for _ in range(10)]
    assert time.monotonic() - begun < 2.5
    client.stop()
    assert len(stored(shop)) == sum(len(items_of(one)) for one in answers)
    log.close()


def test_what_a_full_log_cannot_take_is_answered_and_counted(shop, serve, monkeypatch):
    monkeypatch.setattr(served_log, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(served_log, "RETRY_SECONDS", 0.02)
    shop.log.close()
    log = stubborn(shop)
    log.failures = 1 << 30
    client = serve(shop, log)
    client.serving.recommender.log.max_bytes = 3000
    answers = [client.recommend(user_id="u1", n=5) for _ in range(4)]
    assert all(len(one["items"]) == 5 for one in answers)
    lost = client.counted("serving_impressions_lost_total")
    assert 0 < lost < 20
    deadline = time.monotonic() + 20
    while client.get("/health").json()["log"]["status"] != "failing":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.stop()
    assert client.counted("serving_impressions_lost_total") == 20
    log.failures = 0
    log.close()
