"""The embedded event log when processes are killed, disks are full, and several processes write at once."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.log.embedded import writer as writing
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data_tests.support.log_reading import everything, follow, lines_of

# Appends `name-<append>-<line>` for ever or `appends` times, and says after each append that it is durable.
WRITER = """
import sys
from pathlib import Path
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
folder, name, appends, lines = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = EmbeddedLog(Path(folder), segment_bytes=100_000)
for number in range(appends):
    log.append([f"{name}-{number}-{line}-{'x' * (line % 90)}".encode() for line in range(lines)])
    print(number, flush=True)
"""

# Writes, forks, and writes on in both processes.
FORKING = """
import os, sys
from pathlib import Path
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
log = EmbeddedLog(Path(sys.argv[1]))
log.append([b"before"])
child = os.fork()
for number in range(50):
    log.append([f"{'parent' if child else 'child'}-{number}".encode()])
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def start_writer(folder: Path, name: str, appends: int, lines: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(folder), name, str(appends), str(lines)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@contextmanager
def limited(what: int, amount: int) -> Iterator[None]:
    """A limit of the operating system that this process meets as it would meet a full disk."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (amount, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def test_processes_that_write_at_once_lose_and_double_nothing(tmp_path: Path):
    log = EmbeddedLog(tmp_path, partitions=3)
    writers = [start_writer(tmp_path, f"w{number}", 30, 200) for number in range(3)]
    for process in writers:
        output, _ = process.communicate()
        assert (process.returncode, len(output.split())) == (0, 30)
    found = everything(log)
    names = {line.rsplit(b"-", 1)[0] for line in found}
    assert len(found) == len(names) == 3 * 30 * 200


def test_killed_writer_loses_nothing_acknowledged_and_moves_nothing_consumed(tmp_path: Path):
    chance = random.Random(7)
    log = EmbeddedLog(tmp_path, partitions=1)
    consumed: list[tuple[int, bytes]] = []
    acknowledged = []
    position = 0
    for kill in range(4):
        process = start_writer(tmp_path, f"k{kill}", 1_000_000, 2000)
        assert process.stdout
        process.stdout.readline()
        until = time.monotonic() + chance.uniform(0.02, 0.2)
        while time.monotonic() < until:
            piece = log.read(0, position, 70_000)
            consumed += zip(piece.positions.tolist(), lines_of(piece), strict=True)
            position = piece.end
        process.send_signal(signal.SIGKILL)
        # The first line was read above.
        appends = 1 + len(process.communicate()[0].split())
        acknowledged += [f"k{kill}-{number}-{line}" for number in range(appends) for line in range(2000)]
    log.append([b"after"])
    final = follow(log, 0, 0)
    assert final[: len(consumed)] == consumed
    assert final[-1][1] == b"after"
    counts = Counter(line.decode().rsplit("-", 1)[0] for _, line in final[:-1])
    assert set(counts.values()) == {1}
    assert counts.keys() >= set(acknowledged)


def test_forked_process_writes_to_a_partition_of_its_own(tmp_path: Path):
    log = EmbeddedLog(tmp_path, partitions=2)
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path)], check=True)
    written = [[line for _, line in follow(log, partition, 0)] for partition in (0, 1)]
    parent, child = sorted(written, key=len, reverse=True)
    assert parent == [b"before", *(b"parent-%d" % number for number in range(50))]
    assert child == [b"child-%d" % number for number in range(50)]


def test_full_disk_leaves_whole_lines_only_and_writing_goes_on(tmp_path: Path):
    log, reader = EmbeddedLog(tmp_path, partitions=1), EmbeddedLog(tmp_path)
    log.append([b"kept"])
    with (
        limited(resource.RLIMIT_FSIZE, 12),
        pytest.raises(Transient, match="cannot be used now: File too large"),
    ):
        log.append([b"one", b"two", b"three"])
    (segment,) = tmp_path.glob("0/*.ndjson")
    # Somebody may have consumed `one`, so its position must not come to mean another line.
    assert segment.read_bytes() == b"kept\none\n"
    before = follow(reader, 0, 0)
    log.append([b"one", b"two", b"three"])
    log.close()
    assert follow(reader, 0, 0)[: len(before)] == before
    assert everything(reader) == [b"kept", b"one", b"one", b"two", b"three"]


def test_disk_without_room_for_a_single_line_leaves_nothing(tmp_path: Path):
    log = EmbeddedLog(tmp_path, partitions=1)
    log.append([b"kept"])
    for _ in range(3):
        with limited(resource.RLIMIT_FSIZE, 7), pytest.raises(Transient, match="Free disk space"):
            log.append([b"line"])
    assert everything(log) == [b"kept"]
    log.append([b"line"])
    log.close()
    (segment,) = tmp_path.glob("0/*.ndjson")
    assert segment.read_bytes() == b"kept\nline\n"


def test_segment_that_cannot_be_started_is_started_by_a_later_append(tmp_path: Path):
    log = EmbeddedLog(tmp_path, partitions=1, segment_bytes=10)
    log.append([b"12345678"])
    for _ in range(2):
        with limited(resource.RLIMIT_NOFILE, 0), pytest.raises(Transient, match="Too many open files"):
            log.append([b"next"])
    # An append that would have fitted into the old segment must not go there either.
    log.append([b""])
    log.close()
    assert [path.stat().st_size for path in sorted(tmp_path.glob("0/*.ndjson"))] == [9, 1]
    assert follow(log, 0, 0) == [(0, b"12345678"), (9, b"")]


def test_log_that_cannot_be_taken_is_taken_by_a_later_append(tmp_path: Path):
    log = EmbeddedLog(tmp_path, partitions=1)
    with limited(resource.RLIMIT_NOFILE, 0), pytest.raises(Transient, match="Too many open files"):
        log.append([b"a"])
    log.append([b"a"])
    log.close()
    assert everything(log) == [b"a"]


def test_nothing_acknowledged_follows_lines_that_the_disk_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log, reader = EmbeddedLog(tmp_path, partitions=1), EmbeddedLog(tmp_path)
    log.append([b"kept"])

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(writing, "sync", fail)
        with pytest.raises(Transient, match="cannot be used now: Input/output error"):
            log.append([b"in doubt"])
    log.append([b"next"])
    log.close()
    first, second = sorted(tmp_path.glob("0/*.ndjson"))
    assert (first.read_bytes(), second.read_bytes()) == (b"kept\nin doubt\n", b"next\n")
    # What the kernel could not write may be gone after a power failure; its positions stay unused.
    os.truncate(first, 5)
    assert follow(reader, 0, 0) == [(0, b"kept"), (14, b"next")]
    assert follow(reader, 0, 5) == [(14, b"next")]
    assert (reader.count(0, 5), reader.count(0, 14)) == (1, 1)
