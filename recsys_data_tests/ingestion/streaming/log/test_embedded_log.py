"""The embedded event log: its files, its locks, and what its messages say."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion.streaming.log.embedded import reader as reading
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data_tests.support.log_reading import everything, follow, lines_of

OpenEmbedded = Callable[..., EmbeddedLog]


@pytest.fixture
def open_embedded(tmp_path: Path) -> Iterator[OpenEmbedded]:
    """Opens the log in `tmp_path / "log"`, with one partition unless stated otherwise."""
    opened = []

    def open_(**arguments) -> EmbeddedLog:
        opened.append(EmbeddedLog(tmp_path / "log", **{"partitions": 1} | arguments))
        return opened[-1]

    yield open_
    for log in opened:
        log.close()


def segments(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "log").glob("*/*.ndjson"))


def test_segments_are_named_by_position_and_hold_the_lines_back_to_back(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded(segment_bytes=10)
    for line in (b"one", b"two", b"longer than a segment", b"end"):
        log.append([line])
    assert [(path.name, path.read_bytes()) for path in segments(tmp_path)] == [
        ("00000000000000000000.ndjson", b"one\ntwo\n"),
        ("00000000000000000008.ndjson", b"longer than a segment\n"),
        ("00000000000000000030.ndjson", b"end\n"),
    ]
    assert [position for position, _ in follow(open_embedded(), 0, 0)] == [0, 4, 8, 30]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    appends=st.lists(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), min_size=1), max_size=8),
    segment_bytes=st.integers(1, 150),
    max_bytes=st.integers(1, 80),
)
def test_positions_are_byte_offsets_across_segments_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, appends: list[list[bytes]], segment_bytes: int, max_bytes: int
):
    folder = tmp_path_factory.mktemp("positions")
    log = EmbeddedLog(folder, partitions=1, segment_bytes=segment_bytes)
    expected, position = [], 0
    for lines in appends:
        log.append(lines)
        for line in lines:
            expected.append((position, line))
            position += len(line) + 1
    log.close()
    assert follow(log, 0, 0, max_bytes) == expected
    assert log.end_offsets() == {0: position}
    assert b"".join(path.read_bytes() for path in sorted(folder.glob("0/*.ndjson"))) == b"".join(
        line + b"\n" for _, line in expected
    )


def test_tail_without_a_newline_is_no_event_until_a_writer_cuts_it_off(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded()
    log.append([b"whole"])
    log.close()
    with segments(tmp_path)[0].open("ab") as segment:
        segment.write(b"also whole\n" + b"torn" * 1_000_000)
    reader = open_embedded()
    assert everything(reader) == [b"whole", b"also whole"]
    assert (reader.end_offsets(), reader.count(0, 0)) == ({0: 17}, 2)
    log.append([b"next"])
    assert segments(tmp_path)[0].read_bytes() == b"whole\nalso whole\nnext\n"
    assert everything(reader) == [b"whole", b"also whole", b"next"]


def test_torn_first_line_is_cut_off(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded()
    (tmp_path / "log" / "0" / "00000000000000000000.ndjson").write_bytes(b"torn")
    assert log.end_offsets() == {0: 0}
    log.append([b"a"])
    assert everything(log) == [b"a"]


def test_read_syncs_lines_that_nobody_is_known_to_have_synced(
    open_embedded: OpenEmbedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = open_embedded()
    log.append([b"a"])
    log.close()
    synced = []
    monkeypatch.setattr(reading, "sync", synced.append)
    reader = open_embedded()
    everything(reader)
    everything(reader)
    assert len(synced) == 1
    with segments(tmp_path)[0].open("ab") as segment:
        segment.write(b"b\n")
    assert everything(reader) == [b"a", b"b"]
    assert len(synced) == 2


def test_number_of_partitions_is_kept_from_when_the_log_was_created(open_embedded: OpenEmbedded):
    assert open_embedded(partitions=3).partitions() == (0, 1, 2)
    assert open_embedded(partitions=5).partitions() == (0, 1, 2)
    assert open_embedded(partitions=1).partitions() == (0, 1, 2)


def test_each_writer_holds_a_partition_of_its_own(open_embedded: OpenEmbedded):
    logs = [open_embedded(partitions=3) for _ in range(3)]
    for log in logs:
        log.append([b"a"])
    assert open_embedded().end_offsets() == {0: 2, 1: 2, 2: 2}


def test_writer_without_a_free_partition_waits_until_one_is_let_go(open_embedded: OpenEmbedded):
    holder, waiter = open_embedded(), open_embedded()
    holder.append([b"a"])
    timer = threading.Timer(0.1, holder.close)
    timer.start()
    waiter.append([b"b"])
    timer.join()
    assert everything(waiter) == [b"a", b"b"]


def test_writer_that_waited_in_vain_is_reported_how_many_partitions_there_are(open_embedded: OpenEmbedded):
    holder, waiter = open_embedded(), open_embedded(wait_seconds=0.1)
    holder.append([b"a"])
    begun = time.monotonic()
    with pytest.raises(Transient, match="Each of the 1 partitions.*RECSYS_DATA_LOG_PARTITIONS"):
        waiter.append([b"b"])
    assert 0.1 <= time.monotonic() - begun < 5
    assert everything(waiter) == [b"a"]
    holder.close()
    waiter.append([b"b"])
    assert everything(waiter) == [b"a", b"b"]


def test_prune_deletes_old_consumed_segments_only(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded(segment_bytes=4)
    for line in (b"aaa", b"bbb", b"ccc", b"ddd"):
        log.append([line])
    day_ago = time.time() - 86400
    for path in segments(tmp_path)[:2]:
        os.utime(path, (day_ago, day_ago))
    reader = open_embedded()
    assert reader.prune({0: 16}, timedelta(days=2)) == 0
    assert reader.prune({0: 3}, timedelta(hours=1)) == 0
    assert reader.prune({0: 7}, timedelta(hours=1)) == 4
    assert reader.prune({0: 16}, timedelta(hours=1)) == 4
    assert reader.begin_offsets() == {0: 8}
    assert reader.prune({0: 16}, timedelta(0)) == 4
    assert (reader.begin_offsets(), reader.end_offsets()) == ({0: 12}, {0: 16})
    log.append([b"eee"])
    assert follow(reader, 0, 12) == [(12, b"ddd"), (16, b"eee")]


def test_old_segment_stays_while_an_older_one_must(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded(segment_bytes=4)
    for line in (b"aaa", b"bbb", b"ccc"):
        log.append([line])
    os.utime(segments(tmp_path)[1], (0, 0))
    assert log.prune({0: 12}, timedelta(hours=1)) == 0
    assert len(follow(log, 0, 0)) == 3


def test_a_missing_segment_is_a_gap_before_the_first_line(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded(segment_bytes=4)
    for line in (b"aaa", b"bbb", b"ccc", b"ddd"):
        log.append([line])
    log.prune({0: 4}, timedelta(0))
    pruned = log.read(0, 0, 1000)
    assert (pruned.start, pruned.positions.tolist(), log.count(0, 0)) == (0, [4], 3)
    segments(tmp_path)[1].unlink()
    removed = log.read(0, 8, 1000)
    assert (removed.start, removed.positions.tolist(), log.count(0, 4)) == (8, [12], 2)
    assert follow(log, 0, 4) == [(4, b"bbb"), (12, b"ddd")]


@pytest.mark.parametrize("kept", [0, 1])
def test_positions_of_a_newest_segment_that_is_gone_are_not_used_again(
    open_embedded: OpenEmbedded, tmp_path: Path, kept: int
):
    """What it held may have been consumed: other lines at its positions would never be read."""
    log = open_embedded(segment_bytes=4)
    for line in [b"one", b"two"][1 - kept :]:
        log.append([line])
    log.close()
    consumed = log.end_offsets()[0]
    segments(tmp_path)[-1].unlink()
    again = open_embedded(segment_bytes=4)
    again.append([b"six"])
    read = again.read(0, consumed, 1000)
    assert lines_of(read) == [b"six"]
    assert read.start == consumed < read.positions[0]
    again.close()
    third = open_embedded(segment_bytes=8)
    third.append([b"ten"])
    assert third.end_offsets()[0] == read.end + 4


def test_pruning_beside_a_writer_and_a_reader_loses_nothing(open_embedded: OpenEmbedded):
    writer, reader, pruner = open_embedded(segment_bytes=100), open_embedded(), open_embedded()
    lines = [b"%d" % number for number in range(300)]
    thread = threading.Thread(target=lambda: [writer.append([line]) for line in lines])
    thread.start()
    found, start, freed = [], 0, 0
    while thread.is_alive() or reader.end_offsets()[0] > start:
        piece = reader.read(0, start, 1 << 20)
        found += lines_of(piece)
        start = piece.end
        freed += pruner.prune({0: start}, timedelta(0))
    thread.join()
    assert found == lines
    assert freed == pruner.begin_offsets()[0] > 0


def test_log_that_is_shorter_than_what_was_consumed_is_named_as_replaced(
    open_embedded: OpenEmbedded,
):
    log = open_embedded()
    with pytest.raises(Permanent, match=r"Position 7 lies beyond the end \(0\).*replaced or lost data.*Restore"):
        log.read(0, 7, 1000)
    log.append([b"abc", b"def"])
    with pytest.raises(
        Permanent,
        match="Position 7 of partition 0 .* is not the start of a line.*replaced or changed.*Restore",
    ):
        log.read(0, 7, 1000)


def test_log_that_is_deleted_under_its_writer_is_not_written_into_the_void(open_embedded: OpenEmbedded, tmp_path: Path):
    log = open_embedded()
    log.append([b"a"])
    (segment,) = segments(tmp_path)
    segment.unlink()
    with pytest.raises(UserError, match="deleted while it was written"):
        log.append([b"b"])


def test_file_in_the_place_of_the_folder_is_named(tmp_path: Path):
    (tmp_path / "log").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/log cannot be used: Not a directory.*RECSYS_DATA_DIR"):
        EmbeddedLog(tmp_path / "log")


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder with a log of one line in `log`, of which an ordinary user may change nothing."""
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = EmbeddedLog(folder / "log", partitions=1)
        log.append([b"a"])
        log.close()
        for path in (folder / "log" / "0", folder / "log", folder):
            path.chmod(0o555)
        if was == 0:
            # Nothing is forbidden to the superuser.
            os.seteuid(65534)
        yield folder
        os.seteuid(was)


def test_log_that_may_only_be_read_is_read(read_only_folder: Path):
    log = EmbeddedLog(read_only_folder / "log")
    assert everything(log) == [b"a"]
    with pytest.raises(UserError, match="/log cannot be used: Permission denied.*correct its permissions"):
        log.append([b"b"])


def test_log_that_may_not_be_created_is_named(read_only_folder: Path):
    with pytest.raises(UserError, match="/new/log cannot be used: Permission denied.*RECSYS_DATA_DIR"):
        EmbeddedLog(read_only_folder / "new" / "log")
