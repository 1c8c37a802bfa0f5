"""The embedded online store: processes, crashes and damage."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys_data.errors import Permanent, PositionMoved
from recsys_data.serving.online_store.lmdb import LmdbStore

# Commits, or rebuilds, a generation of 300 equal values after the other, until it is killed.
WRITER = """
import sys
from pathlib import Path
from recsys_data.serving.online_store.lmdb import LmdbStore
store = LmdbStore(Path(sys.argv[1]))
rebuild = sys.argv[2] == "rebuild"
number = int(store.position() or b"0")
while True:
    number += 1
    value = b"%d" % number
    changes = [(b"key %d" % one, value) for one in range(300)]
    if rebuild:
        with store.rebuild() as new:
            new.put(changes[:100])
            new.put(changes[100:])
            new.publish(value)
    else:
        store.commit(store.position(), value, changes)
    if number == 3:
        print("writing", flush=True)
"""
KEYS = [b"key %d" % one for one in range(300)]


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("kind", ["commit", "rebuild"])
def test_a_writer_that_is_killed_leaves_whole_commits(tmp_path: Path, kind: str) -> None:
    store = LmdbStore(tmp_path)
    for delay in (0.0, 0.011, 0.023):
        store.clear()
        process = start(WRITER, str(tmp_path), kind)
        time.sleep(delay)
        process.kill()
        process.communicate()
        position = store.position()
        assert position is not None and int(position) >= 3
        assert set(store.get_many(KEYS)) == {position}
        assert len(list(store.scan())) == 300
        store.commit(position, b"next", [(KEYS[0], b"mine")])
        assert store.get_many(KEYS[:2]) == [b"mine", position]
    store.close()


def test_readers_in_other_processes_see_whole_commits(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    process = start(WRITER, str(tmp_path), "commit")
    seen = set()
    ends = time.monotonic() + 10
    while len(seen) < 5 and time.monotonic() < ends:
        found = set(store.get_many(KEYS))
        assert len(found) == 1
        seen |= found
    process.kill()
    process.communicate()
    assert len(seen) == 5
    store.close()


def test_a_store_is_opened_twice_in_a_process(tmp_path: Path) -> None:
    one, other = LmdbStore(tmp_path / "a"), LmdbStore(tmp_path / "b" / ".." / "a")
    one.commit(None, b"1", [(b"a", b"1")])
    one.close()
    one.close()
    assert other.get_many([b"a"]) == [b"1"]
    other.close()


def test_a_scan_is_in_the_order_of_the_keys_and_of_one_commit(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.commit(None, b"1", [(b"%03d" % one, b"1") for one in (7, 3, 9, 1)])
    scan = store.scan()
    assert next(scan) == (b"001", b"1")
    store.commit(b"1", b"2", [(b"003", None), (b"005", b"2")])
    assert list(scan) == [(b"003", b"1"), (b"007", b"1"), (b"009", b"1")]
    store.close()


def test_the_file_does_not_grow_with_rebuilds(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    sizes = []
    for number in range(6):
        with store.rebuild() as new:
            new.put((b"key %d" % one, os.urandom(1000)) for one in range(2000))
            new.publish(b"%d" % number)
        sizes.append((tmp_path / "data.mdb").stat().st_size)
    assert sizes[-1] <= sizes[2] * 1.1
    store.close()


def test_a_large_commit_and_rebuild_take_little_memory(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    with store.rebuild() as new:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        new.put((b"%08d" % one, b"v" * 1000) for one in range(150_000))
        new.publish(b"1")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 120 * 1024
    store.close()


def test_little_room_for_addresses_is_enough(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from recsys_data.serving.online_store.lmdb import LmdbStore
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
store = LmdbStore(Path({str(tmp_path)!r}))
store.commit(None, b"1", [(b"a", b"1")])
print(store.get_many([b"a"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[b'1']\n", "")


def test_a_damaged_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(Permanent, match=r"cannot be read.*remove the folder, and rebuild the store from the lake"):
        LmdbStore(tmp_path)


def test_a_file_in_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "online").write_bytes(b"")
    with pytest.raises(Permanent, match="Remove what is there"):
        LmdbStore(tmp_path / "online")


def test_a_killed_process_does_not_block_the_next(tmp_path: Path) -> None:
    process = start(WRITER, str(tmp_path), "commit")
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.05)
    process.kill()
    process.communicate()
    store = LmdbStore(tmp_path)
    position = store.position()
    with pytest.raises(PositionMoved):
        store.commit(b"before", b"after", [])
    store.commit(position, b"after", [])
    assert store.position() == b"after"
    store.close()
