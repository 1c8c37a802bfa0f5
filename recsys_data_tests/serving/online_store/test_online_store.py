"""What every online store does, whatever it is built on."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_data.errors import PositionMoved
from recsys_data.serving.online_store.protocol import Change, OnlineStore
from recsys_data_tests.support.online_stores import OpenStore

# Few keys, so that they are written again; long ones, and some that look like parts of others.
KEYS = st.sampled_from(
    [b"a", b"a\0", b"ab", b"b:1", b"b*", b"b[1]", b"\xff\xff", b"", b"x" * 511, b"x" * 510, b"y" * 2000]
)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=20)), max_size=12)
COMMITS = st.lists(st.tuples(st.booleans(), CHANGES), max_size=6)


def contents(store: OnlineStore, prefix: bytes = b"") -> dict[bytes, bytes]:
    pairs = list(store.scan(prefix))
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def test_an_empty_store_has_no_position_and_no_values(store: OnlineStore) -> None:
    assert store.position() is None
    assert store.get_many([b"a", b"b"]) == [None, None]
    assert store.get_many([]) == []
    assert contents(store) == {}


def test_a_commit_sets_values_deletes_others_and_moves_the_position(store: OnlineStore) -> None:
    store.commit(None, b"1", [(b"a", b"1"), (b"b", b""), (b"c", b"3")])
    store.commit(b"1", b"2", [(b"a", None), (b"c", b"4"), (b"never", None)])
    assert store.position() == b"2"
    assert store.get_many([b"c", b"a", b"b", b"c"]) == [b"4", None, b"", b"4"]
    assert contents(store) == {b"b": b"", b"c": b"4"}


def test_what_is_committed_is_there_when_it_is_opened_again(open_store: OpenStore) -> None:
    first = open_store()
    first.commit(None, b"1", [(b"a", b"1")])
    first.close()
    second = open_store()
    assert (second.position(), second.get_many([b"a"])) == (b"1", [b"1"])


def test_of_two_writers_the_second_is_refused_and_changes_nothing(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    one.commit(None, b"1", [(b"a", b"one")])
    with pytest.raises(PositionMoved, match=r"not at None: another process wrote it"):
        other.commit(None, b"1", [(b"a", b"other"), (b"b", b"other")])
    assert contents(other) == {b"a": b"one"}
    other.commit(b"1", b"2", [(b"a", b"other")])
    with pytest.raises(PositionMoved):
        one.commit(b"1", b"2", [(b"a", b"one")])
    assert contents(one) == {b"a": b"other"}


def test_a_commit_whose_changes_fail_changes_nothing(store: OnlineStore) -> None:
    def failing() -> Iterator[Change]:
        yield b"a", b"2"
        yield b"b", b"2"
        raise ValueError("the lake is away")

    store.commit(None, b"1", [(b"a", b"1")])
    with pytest.raises(ValueError, match="the lake is away"):
        store.commit(b"1", b"2", failing())
    assert (store.position(), contents(store)) == (b"1", {b"a": b"1"})
    store.commit(b"1", b"2", [(b"b", b"2")])
    assert contents(store) == {b"a": b"1", b"b": b"2"}


def test_a_commit_may_be_large_in_number_and_in_values(store: OnlineStore) -> None:
    large = {b"key %d" % number: b"%d" % number * 10 for number in range(230)} | {b"wide": b"v" * 150_000}
    store.commit(None, b"1", large.items())
    assert contents(store) == large
    assert store.get_many([*large]) == [*large.values()]
    store.commit(b"1", b"2", [(key, None) for key in large])
    assert contents(store) == {}


@pytest.mark.parametrize("length", [0, 1, 509, 510, 511, 512, 2047, 5000])
def test_keys_may_have_any_length(store: OnlineStore, length: int) -> None:
    key, like = b"k" * length, b"k" * length + b"l"
    store.commit(None, b"1", [(key, b"1"), (like, b"2")])
    assert store.get_many([key, like, key + b"other"]) == [b"1", b"2", None]
    assert contents(store) == {key: b"1", like: b"2"}
    assert contents(store, like) == {like: b"2"}
    store.commit(b"1", b"2", [(key, None)])
    assert contents(store) == {like: b"2"}


def test_a_scan_is_limited_to_a_prefix(store: OnlineStore) -> None:
    values = {b"user:1": b"a", b"user:2": b"b", b"users": b"c", b"user*": b"d", b"item:1": b"e", b"\xff": b"f"}
    store.commit(None, b"1", values.items())
    assert contents(store, b"user:") == {b"user:1": b"a", b"user:2": b"b"}
    assert contents(store, b"user*") == {b"user*": b"d"}
    assert contents(store, b"\xff") == {b"\xff": b"f"}
    assert contents(store, b"nobody") == {}


def test_clear_leaves_an_empty_store(store: OnlineStore) -> None:
    store.commit(None, b"1", [(b"a", b"1")])
    store.clear()
    assert (store.position(), contents(store)) == (None, {})
    store.commit(None, b"1", [(b"a", b"2")])
    assert contents(store) == {b"a": b"2"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=COMMITS)
def test_a_scan_gives_what_a_dictionary_would_hold(
    store: OnlineStore, commits: list[tuple[bool, list[Change]]]
) -> None:
    store.clear()
    model: dict[bytes, bytes] = {}
    position = None
    for number, (rebuilt, changes) in enumerate(commits):
        moved = b"%d" % number
        if rebuilt:
            kept = [(key, value) for key, value in changes if value is not None]
            with store.rebuild() as new:
                new.put(kept[:5])
                new.put(kept[5:])
                new.publish(moved)
            model = dict(kept)
        else:
            store.commit(position, moved, iter(changes))
            for key, value in changes:
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        position = moved
        assert store.position() == position
        assert contents(store) == model
        assert contents(store, b"b") == {key: value for key, value in model.items() if key.startswith(b"b")}
        asked = [b"a", b"x" * 511, b"y" * 2000, b"", b"b*", b"nobody"]
        assert store.get_many(asked) == [model.get(key) for key in asked]


# Rebuild.


def test_readers_see_the_old_generation_until_the_new_one_is_published(open_store: OpenStore) -> None:
    store, reader = open_store(), open_store()
    store.commit(None, b"1", [(b"a", b"old"), (b"b", b"old")])
    with store.rebuild() as new:
        new.put([(b"a", b"new")])
        new.put([(b"c", b"new"), (b"a", b"newer")])
        assert new.get_many([b"a", b"b", b"c"]) == [b"newer", None, b"new"]
        assert (reader.position(), contents(reader)) == (b"1", {b"a": b"old", b"b": b"old"})
        new.publish(b"5")
    assert (reader.position(), contents(reader)) == (b"5", {b"a": b"newer", b"c": b"new"})
    assert reader.get_many([b"a", b"b", b"c"]) == [b"newer", None, b"new"]
    store.commit(b"5", b"6", [(b"c", None)])
    assert contents(reader) == {b"a": b"newer"}


def test_a_rebuild_that_ends_early_leaves_the_old_generation(store: OnlineStore) -> None:
    store.commit(None, b"1", [(b"a", b"old")])
    with pytest.raises(ValueError, match="the lake is away"), store.rebuild() as new:
        new.put([(b"b", b"new")])
        raise ValueError("the lake is away")
    assert (store.position(), contents(store)) == (b"1", {b"a": b"old"})
    with store.rebuild() as new:
        new.put([(b"c", b"new")])
        new.publish(b"2")
    assert contents(store) == {b"c": b"new"}


def test_of_two_rebuilds_the_newer_one_holds(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    with store.rebuild() as first:
        first.put([(b"a", b"first")])
        with other.rebuild() as second:
            second.put([(b"b", b"second")])
            with pytest.raises(PositionMoved, match="another one began"):
                first.put([(b"c", b"first")])
            with pytest.raises(PositionMoved):
                first.publish(b"1")
            second.publish(b"2")
        with pytest.raises(PositionMoved):
            first.publish(b"1")
    assert (store.position(), contents(store)) == (b"2", {b"b": b"second"})


def test_commits_beside_a_rebuild_are_seen_until_it_is_published(open_store: OpenStore) -> None:
    store, updater = open_store(), open_store()
    updater.commit(None, b"1", [(b"a", b"1")])
    with store.rebuild() as new:
        new.put([(b"a", b"rebuilt")])
        updater.commit(b"1", b"2", [(b"a", b"2")])
        assert contents(store) == {b"a": b"2"}
        new.publish(b"1")
    # The updater goes on from the position of the rebuild.
    with pytest.raises(PositionMoved):
        updater.commit(b"2", b"3", [(b"a", b"3")])
    assert (updater.position(), contents(updater)) == (b"1", {b"a": b"rebuilt"})


def test_a_store_is_built_where_there_is_none(store: OnlineStore) -> None:
    with store.rebuild() as new:
        new.publish(b"0")
    assert (store.position(), contents(store)) == (b"0", {})


def test_readers_never_see_half_a_commit(open_store: OpenStore) -> None:
    """Commits and rebuilds write one number to every key; a reader must find the same in all of them."""
    writer, reader = open_store(), open_store()
    keys = [b"key %d" % number for number in range(105)]
    writer.commit(None, b"0", [(key, b"0") for key in keys])
    stop, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set():
                found = set(reader.get_many(keys))
                seen.update(found)
                if len(found) != 1:
                    wrong.append(found)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(1, 8):
            value = b"%d" % number
            if number % 3 == 0:
                with writer.rebuild() as new:
                    new.put((key, value) for key in keys[:50])
                    new.put((key, value) for key in keys[50:])
                    new.publish(value)
            else:
                writer.commit(b"%d" % (number - 1), value, [(key, None if number % 5 == 0 else value) for key in keys])
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert set(reader.get_many(keys)) == {b"7"}
