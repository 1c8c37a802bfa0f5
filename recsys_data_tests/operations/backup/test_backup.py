"""A backup is made while everything goes on, copies only what is new, and says what is in its way."""

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from os import SEEK_END
from typing import Any

import msgspec
import pytest

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.operations.backup import backup as backup_module
from recsys_data.operations.backup import lake as lake_backup
from recsys_data.operations.backup import store as backup_store
from recsys_data.operations.backup.backup import back_up
from recsys_data.operations.backup.restore import restore, verify
from recsys_data.operations.backup.store import COPIED, Point, Store, alone
from recsys_data_tests.operations.backup.state import as_version_1, feed, files, lose, stored

POINT = Point(2, "/data", datetime(2026, 1, 1, tzinfo=UTC), {}, dagster=False)


def test_only_what_is_new_is_copied_again(platform, folder) -> None:
    feed(platform, "a")
    platform.consume()
    first = back_up(platform.settings, folder)
    assert (first.copied_files, first.copied_bytes) == (len(first.point.files), first.point.bytes)
    # The catalog is copied each time.
    assert back_up(platform.settings, folder).copied_files == 1
    feed(platform, "b")
    platform.consume()
    third = back_up(platform.settings, folder)
    assert 1 < third.copied_files < len(third.point.files)
    assert verify(folder) == third.point
    # What belongs to no point any more is gone.
    assert {one.path for one in third.point.files} == files(folder).keys() - {"point.json", "copied.jsonl", "lock"}


def test_a_backup_that_breaks_off_leaves_the_point_before(platform, open_platform, folder, monkeypatch) -> None:
    known = feed(platform, "a")
    platform.consume()
    back_up(platform.settings, folder)
    feed(platform, "b")
    platform.consume()
    with monkeypatch.context() as patch:

        def crash(*_: object) -> None:
            raise RuntimeError("crash")

        patch.setattr(Store, "publish", crash)
        with pytest.raises(RuntimeError, match="crash"):
            back_up(platform.settings, folder)
    verify(folder)
    lose(platform)
    restore(platform.settings, folder)
    assert stored(open_platform()) == Counter(known)


def test_a_lake_that_changes_meanwhile_is_read_again(platform, folder, monkeypatch) -> None:
    feed(platform, "a")
    platform.consume()
    whole, calls = lake_backup._open, []

    def vanishing(*given: Any) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise FileNotFoundError("gone.metadata.json")
        whole(*given)

    monkeypatch.setattr(lake_backup, "_open", vanishing)
    back_up(platform.settings, folder)
    assert len(calls) == 3
    calls.extend([1] * -100)
    monkeypatch.setattr(lake_backup, "ATTEMPTS", 0)
    with pytest.raises(Transient, match="changed too fast"):
        back_up(platform.settings, folder)
    verify(folder)


def test_a_log_that_was_pruned_beyond_the_catalog_is_reported(platform, folder, monkeypatch) -> None:
    feed(platform, "a", 400)
    whole = backup_module.add_catalog

    def meanwhile(*given):
        point = whole(*given)
        platform.consume()
        assert platform.log.prune(dict(platform.log.end_offsets()), timedelta(0)) > 0
        return point

    platform.consume()
    for name in "bc":
        feed(platform, name, 400)
    monkeypatch.setattr(backup_module, "add_catalog", meanwhile)
    with pytest.raises(Transient, match="was pruned while the backup was made"):
        back_up(platform.settings, folder)


def test_lines_that_the_log_had_lost_before_do_not_keep_a_backup_from_being_made(platform, folder) -> None:
    """So of a dataset whose contract was removed long ago, or where a segment is missing."""
    feed(platform, "a")
    platform.consume()
    for name in "bc":
        feed(platform, name, 400)
    for partition in ("0", "1"):
        for segment in sorted((platform.settings.log_dir / partition).glob("*.ndjson"))[:-1]:
            segment.unlink()
    assert min(platform.log.begin_offsets().values()) > max(platform.ledger().positions.values())
    assert back_up(platform.settings, folder).point.positions == platform.log.end_offsets()


def test_a_data_file_that_vanished_is_reported(platform, folder) -> None:
    feed(platform, "a")
    platform.consume()
    file = next(platform.settings.lake_dir.rglob("*.parquet"))
    file.unlink()
    with pytest.raises(Transient, match=f"{file.name} of .* was removed while the backup was made"):
        back_up(platform.settings, folder)


def test_places_that_make_no_sense_are_refused(platform, folder, tmp_path) -> None:
    with pytest.raises(UserError, match="within each other"):
        back_up(platform.settings, platform.settings.data_dir / "backup")
    with pytest.raises(UserError, match="within each other"):
        back_up(platform.settings, platform.settings.data_dir.parent)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no backup"):
        back_up(platform.settings, tmp_path / "full")
    nowhere = msgspec.structs.replace(platform.settings, dir=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="There is no lake"):
        back_up(nowhere, folder)
    kafka = msgspec.structs.replace(platform.settings, event_log="kafka://user:secret@host/topic")
    with pytest.raises(UserError, match="Only the embedded event log") as refused:
        back_up(kafka, folder)
    assert "secret" not in str(refused.value)
    for look in (verify, lambda at: restore(platform.settings, at)):
        with pytest.raises(UserError, match="There is no backup in"):
            look(folder)
    assert not folder.exists()


def test_two_at_once_do_not_meet(platform, folder) -> None:
    with alone(folder), pytest.raises(Transient, match="Another process is at work on the backup"):
        back_up(platform.settings, folder)


def test_progress_comes_to_what_was_expected(platform, folder) -> None:
    feed(platform, "a", 400)
    platform.consume()
    for work in (lambda on: back_up(platform.settings, folder, progress=on), lambda on: verify(folder, on)):
        calls: list[tuple[int, int]] = []
        work(lambda done, total, calls=calls: calls.append((done, total)))
        assert [done for done, _ in calls] == list(range(1, calls[-1][1] + 1))


def test_copies_are_whole_whatever_the_size_of_a_block(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(backup_store, "BLOCK", 7)
    (tmp_path / "a").write_bytes(bytes(range(100)))
    (tmp_path / "to").mkdir()
    with closing(Store(tmp_path / "to")) as store:
        store.add("x/a", tmp_path / "a", 93)
        (copied,) = store.publish(POINT).files
    assert (tmp_path / "to" / copied.path).read_bytes() == bytes(range(93))
    assert copied.sha256 == backup_store.digest_of(tmp_path / "to" / "x" / "a")
    with pytest.raises(Permanent, match="ends 1 bytes too early"):
        backup_store.copy(tmp_path / "a", tmp_path / "b", 101, 0)


def test_what_a_killed_backup_had_copied_is_used_again(tmp_path) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "to").mkdir()
    killed = Store(tmp_path / "to")
    for name in ("first", "second"):
        killed.add(name, tmp_path / name)
    killed.close()
    with (tmp_path / "to" / COPIED).open("r+b") as journal:
        # A power failure may cut the last line.
        journal.truncate(journal.seek(0, SEEK_END) - 10)
    with closing(Store(tmp_path / "to")) as store:
        assert store.point is None
        for name in ("first", "second", "third"):
            store.add(name, tmp_path / name)
        assert store.copied_files == 2
        assert [one.target for one in store.publish(POINT).files] == ["first", "second", "third"]


def test_a_point_of_version_1_is_verified_restored_and_replaced(platform, open_platform, folder) -> None:
    known = feed(platform, "a")
    platform.consume()
    back_up(platform.settings, folder)
    as_version_1(folder)
    verify(folder)
    with closing(Store(folder)) as store:
        assert store.point and store.point.version == 1
    feed(platform, "b")
    platform.consume()
    lose(platform)
    restore(platform.settings, folder)
    again = open_platform()
    assert stored(again) == Counter(known)
    # All but the catalog is known from before.
    assert back_up(again.settings, folder).copied_files == 1
    assert not (folder / "index.db").exists()
    verify(folder)


def test_a_point_of_a_later_version_is_refused(platform, folder) -> None:
    feed(platform, "a")
    platform.consume()
    point = back_up(platform.settings, folder).point
    for content in (msgspec.json.encode(msgspec.structs.replace(point, version=4)), b"{", b"[]"):
        (folder / "point.json").write_bytes(content)
        for work in (verify, lambda at: back_up(platform.settings, at), lambda at: restore(platform.settings, at)):
            with pytest.raises(UserError, match=r"point.json cannot be read.*Use the version that made it"):
                work(folder)
