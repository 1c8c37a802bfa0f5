"""The online store in Redis: crashes, servers that are away, and secrets."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from recsys_data.errors import Permanent, PositionMoved, Transient, UserError
from recsys_data.serving.online_store.redis import RedisStore
from recsys_data_tests.support.online_stores import redis_in_process
from recsys_data_tests.support.servers import url_of

# Commits, or rebuilds, a generation of 300 equal values after the other, until it is killed.
WRITER = """
import sys
from recsys_data.serving.online_store.redis import RedisStore
store = RedisStore(sys.argv[1])
number = 0
while True:
    number += 1
    value = b"%d" % number
    changes = [(b"key %d" % one, value) for one in range(300)]
    if sys.argv[2] == "rebuild":
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


@pytest.fixture
def url() -> Iterator[str]:
    with ExitStack() as stack:
        yield redis_in_process(stack)


def test_a_writer_that_changes_it_meanwhile_wins(url: str) -> None:
    slow, fast = RedisStore(url), RedisStore(url)

    def changes() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b"slow"
        fast.commit(None, b"fast", [(b"a", b"fast")])
        yield b"b", b"slow"

    with pytest.raises(PositionMoved, match="was written by another process"):
        slow.commit(None, b"slow", changes())
    assert (slow.position(), dict(slow.scan())) == (b"fast", {b"a": b"fast"})


def test_two_stores_of_one_server_have_prefixes_of_their_own(url: str) -> None:
    one, other = RedisStore(f"{url}?prefix=one"), RedisStore(f"{url}?prefix=other")
    one.commit(None, b"1", [(b"a", b"1")])
    assert (other.position(), dict(other.scan())) == (None, {})


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_server_that_is_away_is_transient_and_its_password_hidden(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = RedisStore(f"{scheme}://me:swordfish@127.0.0.1:{taken.getsockname()[1]}/0")
        with pytest.raises(Transient, match="cannot be used now") as found:
            store.get_many([b"a"])
        with pytest.raises(Transient):
            store.commit(None, b"1", [])
    assert "swordfish" not in str(found.value)
    store.close()


@pytest.mark.parametrize("wrong", ["redis://:swordfish@127.0.0.1:port/0", "redis://host:6379/0?nonsense=1"])
def test_a_url_that_makes_no_sense_is_explained(wrong: str) -> None:
    with pytest.raises(UserError, match="makes no sense") as found:
        RedisStore(wrong).position()
    assert "swordfish" not in str(found.value)


def test_something_else_under_its_name_is_explained(url: str) -> None:
    store = RedisStore(url)
    store._writes.set(store._name, b"text")
    with pytest.raises(Permanent, match="with nothing else under its name"):
        store.get_many([b"a"])


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["commit", "rebuild"])
def test_a_writer_that_is_killed_leaves_whole_commits(kind: str) -> None:
    url = f"{url_of('RECSYS_TEST_REDIS_URL')}?prefix=test-{uuid4().hex}"
    store = RedisStore(url)
    for delay in (0.0, 0.013, 0.029):
        store.clear()
        process = subprocess.Popen([sys.executable, "-c", WRITER, url, kind], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "writing\n"
        time.sleep(delay)
        process.kill()
        process.communicate()
        position = store.position()
        assert position is not None
        assert set(store.get_many(KEYS)) == {position}
        assert dict(store.scan()) == dict.fromkeys(KEYS, position)
    store.clear()
    store.close()


@pytest.mark.integration
def test_a_wrong_password_is_explained_and_hidden() -> None:
    place = url_of("RECSYS_TEST_REDIS_URL").partition("://")[2]
    store = RedisStore(f"redis://nobody:swordfish@{place}")
    with pytest.raises(Permanent, match="Correct user, password and rights") as found:
        store.position()
    assert "swordfish" not in str(found.value)
    store.close()


@pytest.mark.integration
def test_what_a_rebuild_that_was_killed_left_is_removed_by_the_next_and_expires() -> None:
    store = RedisStore(f"{url_of('RECSYS_TEST_REDIS_URL')}?prefix=test-{uuid4().hex}")
    dead = store.rebuild()
    dead.__enter__().put([(b"a", b"dead")])
    (left,) = store._writes.keys(store._name + b":building:*")
    assert 0 < store._writes.ttl(left) <= 7200
    with store.rebuild() as new:
        new.put([(b"a", b"new")])
        new.publish(b"1")
    assert store._writes.keys(store._name + b"*") == [store._name]
    assert store._writes.ttl(store._name) == -1
    store.clear()
    store.close()
