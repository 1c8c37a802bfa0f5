"""A consumer takes what waits, in bounded batches, and ends when it is asked to."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.consumer import Until, consume, wait_until_stored
from recsys_data.ingestion.streaming.consumer_lease import (
    ConsumerBusy,
    hold_lease,
    lease_holder,
    standby_waits,
)
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.log import LogSlice
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.settings import Settings
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.platform import Platform, identify, view


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(dir=str(tmp_path / "data"))


HOLD = """
import sys
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.settings import Settings
with hold_lease(Settings(dir=sys.argv[1]), 0, budget=60):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another process that consumes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, settings.dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_while_one_process_consumes_no_other_does(settings: Settings, holder: subprocess.Popen[str]) -> None:
    message = rf"Another process is ingesting: process .*{holder.pid}.* holds .*drain\.lock.*Let it finish, or stop it"
    with pytest.raises(ConsumerBusy, match=message), hold_lease(settings, 0.1):
        pytest.fail("two consumers at once")
    held = lease_holder(settings)
    assert held is not None
    assert held.process == holder.pid
    assert held.ends_at is not None
    assert 0 < held.ends_at - time.time() < 60
    assert issubclass(ConsumerBusy, Transient)


def test_a_killed_process_holds_the_lock_no_longer(settings: Settings, holder: subprocess.Popen[str]) -> None:
    assert lease_holder(settings)
    holder.kill()
    holder.wait()
    assert not lease_holder(settings)
    with hold_lease(settings, 0):
        assert lease_holder(settings)
    assert not lease_holder(settings)


def test_one_successor_waits_for_the_lock_and_gets_it(settings: Settings, holder: subprocess.Popen[str]) -> None:
    got: list[float] = []

    def succeed() -> None:
        with hold_lease(settings, 30):
            got.append(time.monotonic())

    assert not standby_waits(settings)
    successor = threading.Thread(target=succeed)
    successor.start()
    while not standby_waits(settings):
        time.sleep(0.01)
    with pytest.raises(ConsumerBusy, match="already waits to ingest"), hold_lease(settings, 0):
        pytest.fail("two successors at once")
    assert holder.stdin
    holder.stdin.close()
    successor.join(30)
    assert got
    assert not standby_waits(settings)


def test_an_empty_log_is_consumed_at_once(platform: Platform) -> None:
    begun = time.monotonic()
    assert platform.consume() == []
    assert time.monotonic() - begun < 5
    assert platform.rows() == []


def test_a_consumer_waits_for_events_while_it_is_idle(platform: Platform) -> None:
    platform.append([view("a")])
    read = []
    begun = time.monotonic()
    for flushed in consume(platform.log, platform.open_lake(), platform.settings, Until(idle=0.8)):
        read.append(flushed.read)
        if len(read) == 1:
            platform.append([view("b")])
    assert read == [1, 1]
    assert time.monotonic() - begun > 0.8
    platform.assert_whole()


def test_a_consumer_ends_with_its_budget_and_leaves_nothing_half_done(platform: Platform) -> None:
    stop = threading.Event()

    def traffic() -> None:
        number = 0
        while not stop.wait(0.005):
            platform.append([view(f"e{number}")])
            number += 1

    producer = threading.Thread(target=traffic)
    producer.start()
    begun = time.monotonic()
    flushed = platform.consume(Until(idle=60, budget=1), slice_bytes=500)
    seconds = time.monotonic() - begun
    stop.set()
    producer.join()
    assert 1 <= seconds < 15
    read = sum(one.read for one in flushed)
    assert read > 0
    assert platform.counts() == (read, read, 0, 0)
    assert lag_of(platform.log, platform.lake).events > 0
    platform.consume()
    platform.assert_whole()


@pytest.mark.parametrize("until", [Until(idle=60, budget=60), Until(budget=60)])
def test_events_are_committed_although_more_come_with_every_read(
    platform: Platform, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, number = platform.log.read, itertools.count()

    def read_while_more_come(partition: int, start: int, max_bytes: int) -> LogSlice:
        platform.append([view(f"e{next(number)}")], partition)
        return read(partition, start, max_bytes)

    monkeypatch.setattr(platform.log, "read", read_while_more_come)
    commits = consume(platform.log, platform.open_lake(), platform.settings, until)
    assert [one.read > 0 for one in itertools.islice(commits, 3)] == [True, True, True]


def test_events_of_every_partition_are_taken_in_turn(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(partitions=3)
    for writer in range(3):
        platform.append([view(f"{writer}-{number}") for number in range(12)], writer)
    read: list[int] = []
    wait = platform.log.read

    def noted(partition: int, start: int, max_bytes: int) -> LogSlice:
        lines = wait(partition, start, max_bytes)
        if len(lines):
            read.append(partition)
        return lines

    monkeypatch.setattr(platform.log, "read", noted)
    platform.consume(slice_bytes=1000)
    assert all(set(read[place : place + 3]) == {0, 1, 2} for place in range(0, len(read), 3)), read
    platform.assert_whole()


def test_batches_are_bounded_by_what_is_read_at_once(platform: Platform) -> None:
    platform.append([view(f"e{number}") for number in range(24)])
    flushed = platform.consume(slice_bytes=800, commit_rows=8)
    assert sum(one.read for one in flushed) == 24
    assert max(one.read for one in flushed) <= 8 + 800 // len(view("e0"))
    platform.assert_whole()


def test_long_lines_are_committed_before_they_are_many(platform: Platform) -> None:
    lines = [view(f"{n}", note="x" * 1000) for n in range(12)]
    platform.append(lines)
    flushed = platform.consume(slice_bytes=2 * len(lines[0]), commit_bytes=4 * len(lines[0]))
    assert max(one.read for one in flushed) <= 8
    platform.assert_whole()


def test_a_commit_says_what_it_made_visible(platform: Platform) -> None:
    platform.append([view("a", day=1), view("b", day=2, context={"page": "p"}), identify("c"), view("a"), b"x"])
    (flushed,) = platform.consume()
    assert (flushed.read, flushed.accepted, flushed.duplicates, flushed.dead_letters) == (5, 3, 1, 1)
    days = {name: list(found.values()) for name, found in flushed.rows.items()}
    assert days == {"interactions": [1, 1], "contexts": [1], "identities": [1], "dead_letters": [1]}
    assert flushed.seconds > 0
    assert flushed.latency is not None
    assert flushed.latency.events == 3


def test_what_waits_is_counted_in_events(platform: Platform) -> None:
    assert lag_of(platform.log, platform.lake).events == 0
    platform.append([view("a"), view("b")], writer=0)
    platform.append([view("c")], writer=1)
    assert lag_of(platform.log, platform.lake).events == 3
    platform.consume()
    assert lag_of(platform.log, platform.lake).events == 0
    assert positions_of(platform.lake) == platform.log.end_offsets()
    platform.append([view("d")], writer=1)
    assert lag_of(platform.log, platform.lake).events == 1


def test_waiting_for_another_consumer_ends_when_it_has_stored_everything(platform: Platform) -> None:
    platform.append([view("a")])
    ends = platform.log.end_offsets()
    with pytest.raises(Transient, match="Another process is ingesting and did not reach"):
        wait_until_stored(platform.lake, ends, 0.1)
    other = threading.Thread(target=platform.consume)
    other.start()
    wait_until_stored(platform.open_lake(), ends, 30)
    other.join()
    platform.assert_whole()


def test_consumed_segments_are_pruned_after_their_retention(make_platform: MakePlatform) -> None:
    kept, pruned = (make_platform(segment_bytes=300, log_retention_hours=hours) for hours in (1, 0))
    for platform in (kept, pruned):
        for number in range(4):
            platform.append([view(f"e{number}")])
        platform.consume()
    assert max(kept.log.begin_offsets().values()) == 0
    assert max(pruned.log.begin_offsets().values()) > 0
    pruned.append([view("e0"), view("f")])
    pruned.consume()
    assert (len(pruned.ids()), pruned.counts()[2]) == (5, 1)


def test_a_failure_while_decoding_ends_the_consumer_and_loses_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Decoder.decode
    left = [1]

    def failing(self: Any, *args: Any) -> Any:
        if left and left.pop():
            raise MemoryError
        return decode(self, *args)

    monkeypatch.setattr(Decoder, "decode", failing)
    platform.append([view("a")])
    with pytest.raises(MemoryError):
        list(consume(platform.log, platform.open_lake(), platform.settings, Until()))
    platform.consume()
    platform.assert_whole()
