"""The online store in DynamoDB: batches that are not finished, writers that come back, and what is refused."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from recsys_data.errors import Permanent, PositionMoved, UserError
from recsys_data.serving.online_store.dynamodb import DynamoStore
from recsys_data_tests.support.online_stores import dynamodb_in_process

KEYS = [b"key %d" % number for number in range(4)]


class Crash(BaseException):
    """The end of a process, which nothing in it can catch."""


class Calls:
    """Counts the calls of a store, and ends it, or does something, before one of them."""

    def __init__(self, store: DynamoStore) -> None:
        self._client = store._client
        self.made: list[str] = []
        self.before: dict[int, Any] = {}
        store._client = self

    def __getattr__(self, name: str) -> Any:
        def call(**request: Any) -> Any:
            self.made.append(name)
            if act := self.before.pop(len(self.made), None):
                act()
            return getattr(self._client, name)(**request)

        return call if name != "close" else self._client.close


def crash() -> None:
    raise Crash


@pytest.fixture
def url() -> Iterator[str]:
    with ExitStack() as stack:
        yield dynamodb_in_process(stack)


def contents(store: DynamoStore) -> dict[bytes, bytes]:
    return dict(store.scan())


def mixed(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Changes one key, deletes another, adds a third, and leaves the last."""
    return [(KEYS[0], value), (KEYS[1], None), (KEYS[2], value)]


BEFORE = {KEYS[0]: b"old", KEYS[1]: b"old", KEYS[3]: b"old"}
AFTER = {KEYS[0]: b"new", KEYS[2]: b"new", KEYS[3]: b"old"}


@pytest.mark.parametrize("follow", ["the same", "another"])
def test_a_writer_that_is_killed_before_any_call_leaves_all_or_nothing(url: str, follow: str) -> None:
    reader = DynamoStore(url)
    place = 0
    while True:
        place += 1
        reader.clear()
        reader.commit(None, b"1", BEFORE.items())
        writer = DynamoStore(url)
        calls = Calls(writer)
        calls.before[place] = crash
        try:
            writer.commit(b"1", b"2", mixed(b"new"))
        except Crash:
            done = reader.position() == b"2"
            assert contents(reader) == (AFTER if done else BEFORE), calls.made
            assert reader.get_many(KEYS) == [(AFTER if done else BEFORE).get(key) for key in KEYS]
            # The next writer changes the same keys, or others: what the dead one left is seen by nobody.
            if follow == "the same":
                writer = DynamoStore(url)
                if not done:
                    writer.commit(b"1", b"2", mixed(b"new"))
                assert contents(reader) == AFTER
            else:
                DynamoStore(url).commit(b"2" if done else b"1", b"3", [(KEYS[3], b"other")])
                assert contents(reader) == {**(AFTER if done else BEFORE), KEYS[3]: b"other"}
                assert reader.get_many(KEYS[:3]) == [(AFTER if done else BEFORE).get(key) for key in KEYS[:3]]
        else:
            assert place > 4
            return


def test_a_writer_that_comes_back_late_changes_nothing(url: str) -> None:
    """It stood still before each of its calls in turn, while another writer committed twice."""
    place = 0
    while True:
        place += 1
        reader = DynamoStore(url)
        reader.clear()
        reader.commit(None, b"1", BEFORE.items())
        late, other = DynamoStore(url), DynamoStore(url)
        calls = Calls(late)

        def overtake(other: DynamoStore = other) -> None:
            other.commit(b"1", b"2", [(KEYS[0], b"other"), (KEYS[3], b"other")])
            other.commit(b"2", b"3", [(KEYS[3], None)])

        calls.before[place] = overtake
        position = None
        try:
            late.commit(b"1", b"late", mixed(b"late"))
        except PositionMoved:
            position = b"3"
            assert contents(reader) == {KEYS[0]: b"other", KEYS[1]: b"old"}, calls.made
            assert reader.get_many(KEYS) == [b"other", b"old", None, None]
        except AssertionError:
            raise
        if position is None:
            return
        reader.commit(b"3", b"4", [(KEYS[1], b"next")])
        assert contents(reader) == {KEYS[0]: b"other", KEYS[1]: b"next"}


def test_a_reader_that_is_overtaken_reads_again(url: str) -> None:
    """Two commits happen after it read the state, and before it reads the items."""
    writer, reader = DynamoStore(url), DynamoStore(url)
    writer.commit(None, b"0", [(key, b"0") for key in KEYS])
    for value in (b"1", None):
        calls = Calls(reader)

        def overtake(value: bytes | None = value) -> None:
            at = writer.position()
            writer.commit(at, b"x", [(key, value) for key in KEYS[:3]])
            writer.commit(b"x", b"y", [(key, value and b"2") for key in KEYS[:2]])

        calls.before[2] = overtake
        found = reader.get_many(KEYS)
        assert found == ([b"2", b"2", b"1", b"0"] if value else [None, None, None, b"0"])
        reader._client = calls._client


def test_what_a_rebuild_that_was_killed_left_is_removed_by_the_next(url: str) -> None:
    store = DynamoStore(url)
    store.commit(None, b"1", [(b"a", b"1")])
    dead = store.rebuild()
    dead.__enter__().put([(b"b", b"dead")])
    with store.rebuild() as new:
        new.put([(b"c", b"new")])
        new.publish(b"2")
    assert contents(store) == {b"c": b"new"}
    # The state and one value.
    assert sum(len(page) for page in store._pages()) == 2


def test_deleted_values_are_not_kept(url: str) -> None:
    store = DynamoStore(url)
    store.commit(None, b"1", [(b"a", b"personal")])
    store.commit(b"1", b"2", [(b"a", None)])
    assert b"personal" not in repr(list(store._pages())).encode()


def test_a_missing_table_is_explained(url: str) -> None:
    with pytest.raises(UserError, match=r"there is no table nowhere.*create=true"):
        DynamoStore("dynamodb://nowhere?region=eu-west-1")


@pytest.mark.parametrize(
    "wrong",
    [
        "dynamodb://",
        "dynamodb://table/path",
        "dynamodb://table?regoin=eu-west-1",
        "dynamodb://key:swordfish@table",
        "dynamodb://table?region=eu-west-1&endpoint_url=http://key:swordfish@127.0.0.1",
        "dynamodb://table?region=eu-west-1&endpoint_url=nonsense",
    ],
)
def test_a_url_that_makes_no_sense_is_explained(wrong: str) -> None:
    with pytest.raises(UserError, match=r"makes no sense|holds a login") as found:
        DynamoStore(wrong)
    assert "swordfish" not in str(found.value)


def test_a_value_that_is_too_large_is_refused(url: str) -> None:
    store = DynamoStore(url)
    with pytest.raises(Permanent, match="A value may have 200 kB"):
        store.commit(None, b"1", [(b"a", b"v" * 500_000)])
    assert store.position() is None
