"""A backup that is made while everything goes on is restored, drained, and has everything exactly once."""

import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from recsys_data.contracts import Contract, load_contracts
from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion import backup as backup_module
from recsys_data.ingestion import restore as restore_module
from recsys_data.ingestion.backup import Progress, alone, back_up
from recsys_data.ingestion.drain import Until, positions_of
from recsys_data.ingestion.restore import restore, verify
from recsys_data.lake import backup as lake_backup
from recsys_data.lake import backup_store
from recsys_data.lake.backup_store import Store
from recsys_data.lake.maintenance import upkeep
from recsys_data.lake.query import connect
from recsys_data.monitoring.doctor import examine
from recsys_data_tests.ingestion.draining import Platform, view


@pytest.fixture(scope="module")
def contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture
def open_platform(tmp_path: Path, contracts: Mapping[str, Contract]) -> Iterator[Callable[[], Platform]]:
    """Opens the platform in `state`; what was opened is closed at the end."""
    opened: list[Platform] = []

    def open_platform() -> Platform:
        opened.append(Platform(tmp_path / "state", contracts, segment_bytes=20_000))
        return opened[-1]

    yield open_platform
    for platform in opened:
        close(platform)


@pytest.fixture
def platform(open_platform: Callable[[], Platform]) -> Platform:
    return open_platform()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def close(platform: Platform) -> None:
    for writer in platform.writers:
        writer.close()


def stored(platform: Platform) -> Counter[str]:
    with closing(connect(platform.open_lake(), ["interactions"])) as connection:
        return Counter(row[0] for row in connection.execute("SELECT event_id FROM interactions").fetchall())


def feed(platform: Platform, name: str, count: int = 100) -> set[str]:
    """Events of two days in both partitions; returns their ids."""
    ids = {f"{name}-{number}" for number in range(count)}
    lines = [view(event_id, day=1 + number % 2) for number, event_id in enumerate(sorted(ids))]
    platform.append(lines[: count // 2], 0)
    platform.append(lines[count // 2 :], 1)
    return ids


def lose(platform: Platform) -> None:
    close(platform)
    shutil.move(platform.settings.data_dir, platform.settings.data_dir.with_name("lost"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_lake_did_not_have_yet_is_stored_after_a_restore(platform, open_platform, folder) -> None:
    known = feed(platform, "stored")
    platform.drain()
    known |= feed(platform, "waiting")
    made = back_up(platform.settings, folder)
    later = feed(platform, "later")
    platform.drain()
    lose(platform)
    restore(platform.settings, folder)
    again = open_platform()
    assert stored(again).keys() == {one for one in known if one.startswith("stored")}
    assert dict(again.log.end_offsets()) == made.facts.positions
    again.drain()
    assert stored(again) == Counter(known)
    # Positions go on where the restored log ends, and mean what they say.
    assert not later & stored(again).keys()
    more = feed(again, "more")
    again.drain()
    assert stored(again) == Counter(known | more)
    assert positions_of(again.lake) == dict(again.log.end_offsets())
    assert [one for one in examine(again.settings) if one.state == "problem"] == []


def test_backups_while_events_come_and_a_drain_commits_lose_and_double_nothing(
    platform, open_platform, folder, monkeypatch
) -> None:
    monkeypatch.setattr("recsys_data.ingestion.drain.COMMIT_SECONDS", 0.01)
    feed(platform, "first")
    platform.drain()
    stop, sent, failures = threading.Event(), set(), []

    def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sent.update(feed(platform, f"batch{number}", 20))
            stop.wait(0.01)

    def drain() -> None:
        try:
            while not stop.is_set():
                platform.drain(Until(idle=0.05, budget=1.0))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send), threading.Thread(target=drain)]
    for thread in threads:
        thread.start()
    counts = []
    for _ in range(4):
        before = set(sent)
        counts.append(back_up(platform.settings, folder).copied_files)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == [] and min(counts) > 0
    upkeep(platform.lake, "interactions")
    lose(platform)
    restore(platform.settings, folder)
    again = open_platform()
    again.drain()
    found = stored(again)
    assert max(found.values()) == 1
    # Whatever was acknowledged when the last backup began is there, and nothing that was never sent.
    assert before <= found.keys() <= sent | {f"first-{number}" for number in range(100)}
    assert [one for one in examine(again.settings) if one.state == "problem"] == []


def test_only_what_is_new_is_copied_again(platform, folder) -> None:
    feed(platform, "a")
    platform.drain()
    first = back_up(platform.settings, folder)
    assert (first.copied_files, first.copied_bytes) == (first.files, first.bytes)
    # The catalog is copied each time.
    assert back_up(platform.settings, folder).copied_files == 1
    feed(platform, "b")
    platform.drain()
    third = back_up(platform.settings, folder)
    assert 1 < third.copied_files < third.files
    assert verify(folder)[1:] == (third.files, third.bytes)
    # What belongs to no point any more is gone.
    with closing(Store(folder)) as store:
        assert {one.path for one in store.point()} == files(folder).keys() - {"index.db", "lock"}


def test_restored_files_are_known_to_the_next_backup(platform, open_platform, folder) -> None:
    feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    lose(platform)
    restore(platform.settings, folder)
    close(open_platform())
    assert back_up(platform.settings, folder).copied_files == 1


def test_a_backup_that_breaks_off_leaves_the_point_before(platform, open_platform, folder, monkeypatch) -> None:
    known = feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    feed(platform, "b")
    platform.drain()
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


def test_a_restore_that_breaks_off_is_gone_on_with(platform, open_platform, folder, monkeypatch) -> None:
    known = feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    lose(platform)

    def after(count: int) -> Callable[..., None]:
        calls = iter(range(count))

        def step(path: Path) -> None:
            if next(calls, None) is None:
                raise RuntimeError("crash")

        return step

    with monkeypatch.context() as patch:
        patch.setattr(restore_module, "copy", lambda *_: after(0)(Path()))
        with pytest.raises(RuntimeError, match="crash"):
            restore(platform.settings, folder)
    # And between two of the last steps, each of which moves one part into its place.
    for count in (7, 8, 9, 10, 11):
        with monkeypatch.context() as patch:
            patch.setattr(restore_module, "sync_file", after(count))
            with pytest.raises(RuntimeError, match="crash"):
                restore(platform.settings, folder)
        assert not (platform.settings.data_dir / "lake").exists()
    restore(platform.settings, folder)
    assert not (platform.settings.data_dir / ".restoring").exists()
    assert stored(open_platform()) == Counter(known)


def test_a_lake_that_changes_meanwhile_is_read_again(platform, folder, monkeypatch) -> None:
    feed(platform, "a")
    platform.drain()
    whole, calls = lake_backup._open, []

    def vanishing(*given: object) -> None:
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


def test_a_log_that_was_pruned_beyond_the_catalog_is_told(platform, folder, monkeypatch) -> None:
    feed(platform, "a", 400)
    whole = backup_module.add_catalog

    def meanwhile(*given):
        point = whole(*given)
        platform.drain()
        assert platform.log.prune(dict(platform.log.end_offsets()), timedelta(0)) > 0
        return point

    platform.drain()
    for name in "bc":
        feed(platform, name, 400)
    monkeypatch.setattr(backup_module, "add_catalog", meanwhile)
    with pytest.raises(Transient, match="was pruned while the backup was made"):
        back_up(platform.settings, folder)


def test_a_data_file_that_vanished_is_told(platform, folder) -> None:
    feed(platform, "a")
    platform.drain()
    file = next(platform.settings.lake_dir.rglob("*.parquet"))
    file.unlink()
    with pytest.raises(Transient, match=f"{file.name} of .* was removed while the backup was made"):
        back_up(platform.settings, folder)


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_a_damaged_backup_is_found_and_never_restored(platform, folder, how: str) -> None:
    feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    file = next(folder.rglob("*.parquet"))
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + (b"" if how == "cut" else bytes([content[-1] ^ 1])))
    lose(platform)
    with pytest.raises(Permanent, match=file.name):
        verify(folder)
    with pytest.raises(Permanent, match=file.name):
        restore(platform.settings, folder)
    assert [path.name for path in platform.settings.data_dir.iterdir()] == [".restoring"]


def test_a_damaged_copy_that_was_removed_is_copied_again(platform, folder) -> None:
    feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    next(folder.rglob("*.parquet")).unlink()
    back_up(platform.settings, folder)
    verify(folder)


def test_a_lake_is_restored_to_its_own_path_only(platform, folder, tmp_path) -> None:
    feed(platform, "a")
    platform.drain()
    back_up(platform.settings, folder)
    with pytest.raises(UserError, match="is not empty .* move it away"):
        restore(platform.settings, folder)
    other = msgspec.structs.replace(platform.settings, dir=str(tmp_path / "other"))
    with pytest.raises(UserError, match=f"of the state folder {platform.settings.data_dir}, and RECSYS_DATA_DIR is"):
        restore(other, folder)
    assert not (tmp_path / "other").exists()
    shutil.copytree(platform.settings.data_dir, tmp_path / "other")
    with pytest.raises(UserError, match="is the backup of"):
        back_up(other, folder)


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


def test_databases_and_what_is_held_back_are_in_it(platform, folder) -> None:
    held = platform.settings.data_dir / "ingest" / "held" / "item_catalog" / "2026-01-01"
    held.mkdir(parents=True)
    (held / "held.json").write_text("{}")
    home = platform.settings.data_dir / "dagster"
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "run.err").write_text("said")
    with closing(sqlite3.connect(home / "runs.db")) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE runs AS SELECT 7 AS id")
        live.commit()
        # It lies in the write-ahead log only.
        back_up(platform.settings, folder, dagster=True)
    assert back_up(platform.settings, folder).facts.dagster is False
    assert back_up(platform.settings, folder, dagster=True).facts.dagster is True
    lose(platform)
    restore(platform.settings, folder)
    assert (held / "held.json").read_text() == "{}"
    assert (home / "logs" / "run.err").read_text() == "said"
    with closing(sqlite3.connect(home / "runs.db")) as restored:
        assert restored.execute("SELECT id FROM runs").fetchall() == [(7,)]


def test_progress_comes_to_what_was_expected(platform, folder) -> None:
    feed(platform, "a", 400)
    platform.drain()
    for work in (lambda told: back_up(platform.settings, folder, progress=told), lambda told: verify(folder, told)):
        steps, expected, done = [], [0], [0]
        work(Progress(steps.append, expected.append, done.append))
        assert sum(expected) == sum(done) > 0


def test_copies_are_whole_whatever_the_size_of_a_block(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(backup_store, "BLOCK", 7)
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with closing(Store(tmp_path / "to")) as store:
        store.begin()
        store.add("x/a", tmp_path / "a", 93)
        store.publish({})
        (copied,) = store.point()
    assert (tmp_path / "to" / copied.path).read_bytes() == bytes(range(93))
    assert copied.sha256 == backup_store.digest_of(tmp_path / "to" / "x" / "a")
    with (tmp_path / "a").open("rb") as file, pytest.raises(Permanent, match="ends 1 bytes too early"):
        backup_store.copy(file.fileno(), tmp_path / "b", 101, 0)
