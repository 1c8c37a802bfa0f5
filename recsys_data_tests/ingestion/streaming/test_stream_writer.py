"""Commits of micro-batches: durable before visible, one file a day, never twice, never over another's."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from recsys_data import durable as files
from recsys_data.errors import PositionMoved, Transient
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.stream_writer import StreamWriter
from recsys_data.storage import commit
from recsys_data.storage.commit import expire_old_snapshots
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.decoding import decoder_of
from recsys_data_tests.support.platform import Platform, identify, intent_file, view


@pytest.fixture
def writer(platform: Platform) -> StreamWriter:
    return StreamWriter(platform.open_lake(), platform.settings)


def days(platform: Platform, name: str = "interactions") -> Counter[date]:
    """Data files of the table by day."""
    paths = [task.file.file_path for task in platform.lake.table(name).scan().plan_files()]
    return Counter(date.fromisoformat(re.findall(r"_day=(-?[\d-]+)", path)[0]) for path in paths)


def test_what_a_commit_refers_to_is_on_the_disk_before_it(
    platform: Platform, writer: StreamWriter, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync_file, commit_table = files.sync_file, SqlCatalog.commit_table

    def synced(path: Path) -> None:
        sync_file(path)
        steps.append(str(path))

    def committed(self: SqlCatalog, table: Any, *args: Any) -> Any:
        known = {path for path in Path(platform.settings.dir).rglob("*") if path.is_file()}
        result = commit_table(self, table, *args)
        metadata = result.metadata_location
        manifests = [entry.manifest_path for entry in table.refresh().current_snapshot().manifests(table.io)]
        data = [task.file.file_path for task in table.scan().plan_files()]
        for path in [*data, *manifests, table.current_snapshot().manifest_list, metadata]:
            assert path in steps, f"{path} was committed but not synced"
            assert str(Path(path).parent) in steps[steps.index(path) :], f"the folder of {path} was not synced after it"
            assert path == metadata or Path(path) in known
        intent = intent_file(platform.lake, read_ledger(table).intent)
        first = steps.index("dead_letters") if "dead_letters" in steps else len(steps)
        assert str(intent) in steps[:first], "the intent was not synced before the first commit"
        assert str(intent.parent) in steps[steps.index(str(intent)) : first]
        steps.append(table.name()[-1])
        return result

    monkeypatch.setattr(files, "sync_file", synced)
    monkeypatch.setattr(SqlCatalog, "commit_table", committed)
    platform.append([view("a", day=1), view("b", day=2, context={"page": "p"}), identify("c"), b"no JSON"])
    platform.feed(writer, decoder)
    with ThreadPoolExecutor(2) as pool:
        writer.flush(pool)
    tables = [step for step in steps if "/" not in step]
    assert (tables[0], tables[-1]) == ("dead_letters", "interactions")
    assert {step for step in steps if "/" not in step} == set(writer.order)


def test_late_events_go_to_their_own_day_by_one_file_and_one_commit(
    platform: Platform, writer: StreamWriter, decoder: Decoder
) -> None:
    platform.append([view(f"e{number}", day=1 + number % 7) for number in range(70)], writer=0)
    platform.append([view(f"f{number}", day=1 + number % 7) for number in range(70)], writer=1)
    platform.feed(writer, decoder)
    flushed = writer.flush()
    table = platform.lake.table("interactions")
    assert days(platform) == {date(2026, 1, day): 1 for day in range(1, 8)}
    assert len(table.snapshots()) == 1
    assert flushed.rows["interactions"] == {(date(2026, 1, day) - date(1970, 1, 1)).days: 20 for day in range(1, 8)}
    assert (flushed.read, flushed.accepted, flushed.duplicates, flushed.dead_letters) == (140, 140, 0, 0)


def test_days_are_those_of_utc_also_before_1970(make_platform: MakePlatform) -> None:
    platform = make_platform(first_day=date(1900, 1, 1))
    moments = {
        "1969-12-31T23:59:59.999999Z": date(1969, 12, 31),
        "1970-01-01T00:00:00Z": date(1970, 1, 1),
        "1969-07-20T22:17:40-02:00": date(1969, 7, 21),
        "1900-01-01T00:00:00Z": date(1900, 1, 1),
        "2026-01-02T00:30:00+01:00": date(2026, 1, 1),
        "2024-02-29T23:59:59Z": date(2024, 2, 29),
    }
    platform.append([view(f"e{number}", event_ts=text) for number, text in enumerate(moments)])
    decoder = decoder_of(platform.contracts, platform.settings.first_day)
    writer = StreamWriter(platform.open_lake(), platform.settings)
    platform.feed(writer, decoder)
    writer.flush()
    assert days(platform) == Counter(moments.values())
    for row in platform.rows():
        text = list(moments)[int(row["event_id"][1:])]
        assert row["event_ts"] == datetime.fromisoformat(text)
    scan = platform.lake.table("interactions").scan(row_filter="event_ts < '1970-01-01T00:00:00+00:00'")
    assert len(scan.to_arrow()) == 3


def test_hundreds_of_days_are_one_commit(platform: Platform, writer: StreamWriter, decoder: Decoder) -> None:
    moments = [datetime.fromtimestamp(number * 86_400 + 1e9).astimezone() for number in range(300)]
    platform.append([view(f"e{number}", event_ts=one.isoformat()) for number, one in enumerate(moments)])
    platform.feed(writer, decoder)
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        writer.flush(pool)
    assert time.monotonic() - begun < 60
    assert len(days(platform)) == 300
    assert len(platform.lake.table("interactions").snapshots()) == 1


def test_of_two_writers_the_second_is_reported_and_leaves_nothing(
    platform: Platform, writer: StreamWriter, decoder: Decoder
) -> None:
    other = StreamWriter(platform.open_lake(), platform.settings)
    platform.append([view("a"), view("b", context={"page": "p"}), identify("c"), b"no JSON"])
    for each in (writer, other):
        platform.feed(each, decoder)
    writer.flush()
    visible = {name: len(days(platform, name)) for name in writer.order}
    with pytest.raises(PositionMoved, match=r"Another process has moved .* What was read here is read again"):
        other.flush()
    assert platform.counts() == (4, 3, 0, 1)
    assert {name: len(days(platform, name)) for name in writer.order} == visible
    platform.assert_whole()


def test_two_writers_at_different_places_do_not_interleave(
    platform: Platform, writer: StreamWriter, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second completes what the first has decided and goes on; the first finds its commits made."""
    other = StreamWriter(platform.open_lake(), platform.settings)
    platform.append([view("a"), identify("b", context={"page": "p"})])
    for each in (writer, other):
        platform.feed(each, decoder)
    swap = commit.swap
    left = [1]

    def overtaken(table: Any, *args: Any) -> None:
        swap(table, *args)
        if left and left.pop():
            fresh = StreamWriter(platform.open_lake(), platform.settings)
            assert fresh.position(0) == platform.log.end_offsets()[0]

    monkeypatch.setattr(commit, "swap", overtaken)
    writer.flush()
    with pytest.raises(PositionMoved):
        other.flush()
    platform.assert_whole()
    assert (platform.ids(), platform.ids("identities"), platform.ids("contexts")) == (["a"], ["b"], ["b"])


def test_upkeep_by_others_does_not_stand_in_the_way_of_a_commit(
    platform: Platform, writer: StreamWriter, decoder: Decoder
) -> None:
    for event_id in "ab":
        platform.append([view(event_id)])
        platform.feed(writer, decoder)
        writer.flush()
    platform.append([view("c")])
    platform.feed(writer, decoder)
    other = platform.open_lake().table("interactions")
    assert compact_day(other, (date(2026, 1, 1) - date(1970, 1, 1)).days) == 2
    with other.transaction() as transaction:
        transaction.set_properties({"somebody": "was here"})
    writer.flush()
    assert platform.lake.table("interactions").properties["somebody"] == "was here"
    platform.assert_whole()
    assert platform.ids() == ["a", "b", "c"]


def test_a_commit_that_failed_only_to_be_reported_is_not_made_twice(
    platform: Platform, writer: StreamWriter, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_table = SqlCatalog.commit_table

    def lost(*args: Any) -> Any:
        commit_table(*args)
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    platform.append([view("a"), identify("b", context={"page": "p"})])
    platform.feed(writer, decoder)
    monkeypatch.setattr(SqlCatalog, "commit_table", lost)
    monkeypatch.setattr(commit, "PAUSE_SECONDS", 0)
    writer.flush()
    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    platform.append([view("c")])
    platform.feed(writer, decoder)
    writer.flush()
    platform.assert_whole()
    assert {name: len(platform.lake.table(name).snapshots()) for name in writer.order} == dict.fromkeys(writer.order, 2)


def test_what_could_not_be_committed_is_committed_by_the_next_flush(
    platform: Platform, writer: StreamWriter, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_table = SqlCatalog.commit_table

    def locked(self: SqlCatalog, table: Any, *args: Any) -> Any:
        if table.name()[-1] == "interactions":
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return commit_table(self, table, *args)

    platform.append([view("a", context={"page": "p"}), identify("b")])
    platform.feed(writer, decoder)
    monkeypatch.setattr(SqlCatalog, "commit_table", locked)
    monkeypatch.setattr(commit, "PAUSE_SECONDS", 0)
    with pytest.raises(Transient, match=r"interactions could not be committed in \d+ attempts: .*database is locked"):
        writer.flush()
    assert (platform.ids(), platform.ids("contexts")) == ([], ["a"])
    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    writer.flush()
    writer.close()
    platform.assert_whole()
    assert (platform.ids(), platform.ids("identities")) == (["a"], ["b"])


def test_old_snapshots_expire_unless_somebody_commits_just_then(
    platform: Platform, writer: StreamWriter, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "EXPIRE_EVERY", 3)
    monkeypatch.setattr(commit, "SNAPSHOT_AGE", -commit.SNAPSHOT_AGE)
    for event_id in "abcd":
        platform.append([view(event_id)])
        platform.feed(writer, decoder)
        writer.flush()
    table = platform.lake.table("interactions")
    assert len(table.snapshots()) < 4
    assert platform.ids() == list("abcd")
    platform.append([view("e"), view("f")])
    for event_id in "gh":
        platform.append([view(event_id)])
        platform.feed(writer, decoder)
        writer.flush()
    commit_table = SqlCatalog.commit_table

    def overtaken(*_: Any) -> Any:
        raise CommitFailedException("somebody was faster")

    monkeypatch.setattr(SqlCatalog, "commit_table", overtaken)
    expire_old_snapshots(table.refresh())
    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    platform.assert_whole()


def test_latencies_are_published_with_the_next_commit_or_at_the_end(
    platform: Platform, writer: StreamWriter, decoder: Decoder
) -> None:
    platform.append([view("a"), view("b", received_at=None)])
    platform.feed(writer, decoder)
    flushed = writer.flush()
    assert flushed.latency is not None
    assert (flushed.latency.events, len(flushed.latency.deciles)) == (1, 10)
    assert platform.ledger().latencies == ()
    writer.close()
    assert platform.ledger().latencies == (flushed.latency,)
    assert platform.ledger("contexts").latencies == ()
    platform.assert_whole()
