"""What every event log does, whatever it is built on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data_tests.support.log_reading import everything, follow, lines_of, used_partition

OpenLog = Callable[[], EventLog]

LINES = [b'{"event_id":"1"}', b"", b"not JSON \xff\x00\r", b" ", b"x" * 1000, b'{"event_id":"2"}']


def test_appended_lines_are_read_exactly_and_in_order_by_another_client(open_log: OpenLog):
    open_log().append(LINES)
    assert everything(open_log()) == LINES


def test_appends_of_one_client_stay_in_order(open_log: OpenLog):
    log = open_log()
    for number in range(50):
        log.append([b"%d" % number, b"%d again" % number])
    expected = [line for number in range(50) for line in (b"%d" % number, b"%d again" % number)]
    assert everything(open_log()) == expected


def test_new_log_is_empty_and_can_be_read_before_anything_is_written(open_log: OpenLog):
    log = open_log()
    assert len(log.partitions()) >= 2
    assert log.begin_offsets() == log.end_offsets()
    assert set(log.begin_offsets()) == set(log.partitions())
    for partition, begin in log.begin_offsets().items():
        piece = log.read(partition, begin, 1000)
        assert (len(piece), piece.start, piece.end, piece.data) == (0, begin, begin, b"")
        assert piece.bounds.tolist() == [0]
        assert log.count(partition, begin) == 0


def test_partitions_are_the_same_for_every_client(open_log: OpenLog):
    first = open_log()
    first.append([b"a"])
    assert list(open_log().partitions()) == list(first.partitions())


def test_empty_append_changes_nothing(open_log: OpenLog):
    log = open_log()
    log.append([])
    assert log.end_offsets() == log.begin_offsets()


def test_blank_line_is_a_line(open_log: OpenLog):
    log = open_log()
    log.append([b""])
    partition = used_partition(log)
    assert everything(log) == [b""]
    assert log.count(partition, log.begin_offsets()[partition]) == 1


def test_line_with_a_newline_is_refused_with_the_whole_append(open_log: OpenLog):
    log = open_log()
    with pytest.raises(Permanent, match="Line 2 of the 3 to append holds a newline"):
        log.append([b"good", b"two\nlines", b"good"])
    assert everything(log) == []


def test_reading_can_start_at_any_line(open_log: OpenLog):
    log = open_log()
    log.append(LINES)
    log.append(LINES)
    partition = used_partition(log)
    whole = follow(log, partition, log.begin_offsets()[partition])
    for index, (position, _) in enumerate(whole):
        assert follow(log, partition, position) == whole[index:]
        assert log.count(partition, position) == len(whole) - index
    end = log.end_offsets()[partition]
    assert follow(log, partition, end) == []
    assert log.count(partition, end) == 0


def test_positions_grow_and_the_end_of_a_read_is_the_start_of_the_next(open_log: OpenLog):
    log = open_log()
    log.append(LINES)
    partition = used_partition(log)
    start = log.begin_offsets()[partition]
    piece = log.read(partition, start, 1 << 20)
    positions = piece.positions.tolist()
    assert positions[0] >= start
    assert positions == sorted(set(positions))
    assert positions[-1] < piece.end <= log.end_offsets()[partition]


def test_read_is_bounded_but_gives_a_line_that_is_longer(open_log: OpenLog):
    log = open_log()
    log.append([b"a" * 10, b"b" * 10, b"c" * 100, b"d"])
    partition = used_partition(log)
    start = log.begin_offsets()[partition]
    sizes = []
    while len(piece := log.read(partition, start, 25)):
        sizes.append([len(line) for line in lines_of(piece)])
        start = piece.end
    assert sizes == [[10, 10], [100], [1]]


def test_line_longer_than_any_block_is_read_whole(open_log: OpenLog):
    log = open_log()
    lines = [b"x" * 2_500_000, b"y"]
    log.append(lines)
    assert everything(log, max_bytes=1) == lines


def test_position_beyond_the_end_is_refused(open_log: OpenLog):
    log = open_log()
    log.append([b"a"])
    partition = used_partition(log)
    beyond = log.end_offsets()[partition] + 1
    for look in (lambda: log.read(partition, beyond, 1000), lambda: log.count(partition, beyond)):
        with pytest.raises(Permanent, match=f"Position {beyond} lies beyond the end"):
            look()


def test_partition_that_does_not_exist_is_refused(open_log: OpenLog):
    log = open_log()
    missing = max(log.partitions()) + 1
    with pytest.raises(Permanent, match=f"no partition {missing}"):
        log.read(missing, 0, 1000)


def test_threads_that_append_at_once_lose_and_double_nothing(open_log: OpenLog):
    log = open_log()
    with ThreadPoolExecutor(8) as threads:
        batches = [[b"%d-%d" % (batch, line) for line in range(7)] for batch in range(40)]
        list(threads.map(log.append, batches))
    found = everything(log)
    assert sorted(found) == sorted(line for batch in batches for line in batch)
    assert [line for line in found if line.startswith(b"3-")] == batches[3]


def test_clients_that_append_side_by_side_lose_and_double_nothing(open_log: OpenLog):
    logs = [open_log(), open_log()]
    for number in range(20):
        logs[number % 2].append([b"%d" % number])
    assert sorted(everything(logs[0]), key=int) == [b"%d" % number for number in range(20)]


def test_closed_log_can_be_read_and_appended_to_again(open_log: OpenLog):
    log = open_log()
    log.append([b"a"])
    log.close()
    assert everything(open_log()) == [b"a"]
    log.append([b"b"])
    assert sorted(everything(open_log())) == [b"a", b"b"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    appends=st.lists(st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line)), max_size=8),
    max_bytes=st.integers(1, 200),
)
def test_whatever_is_appended_comes_back(
    event_log_factory: Callable[[], OpenLog], appends: list[list[bytes]], max_bytes: int
):
    open_log = event_log_factory()
    log = open_log()
    for lines in appends:
        log.append(lines)
    log.close()
    reader = open_log()
    expected = [line for lines in appends for line in lines]
    assert everything(reader, max_bytes) == expected
    begins = reader.begin_offsets()
    assert sum(reader.count(number, begins[number]) for number in reader.partitions()) == len(expected)
