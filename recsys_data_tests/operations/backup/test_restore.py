"""What is restored, consumed, has everything exactly once; what is damaged is never restored."""

import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from recsys_data.errors import Permanent, UserError
from recsys_data.ingestion.streaming.consumer import Until
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.monitoring.doctor import examine
from recsys_data.operations.backup import restore as restore_module
from recsys_data.operations.backup.backup import back_up
from recsys_data.operations.backup.restore import restore, verify
from recsys_data.storage.maintenance.compaction import maintain_table
from recsys_data_tests.operations.backup.state import close, feed, lose, stored


def test_what_the_lake_did_not_have_yet_is_stored_after_a_restore(platform, open_platform, folder) -> None:
    known = feed(platform, "stored")
    platform.consume()
    known |= feed(platform, "waiting")
    made = back_up(platform.settings, folder)
    later = feed(platform, "later")
    platform.consume()
    lose(platform)
    restore(platform.settings, folder)
    again = open_platform()
    assert stored(again).keys() == {one for one in known if one.startswith("stored")}
    assert dict(again.log.end_offsets()) == made.point.positions
    again.consume()
    assert stored(again) == Counter(known)
    # Positions go on where the restored log ends, and mean what they say.
    assert not later & stored(again).keys()
    more = feed(again, "more")
    again.consume()
    assert stored(again) == Counter(known | more)
    assert positions_of(again.lake) == dict(again.log.end_offsets())
    assert [one for one in examine(again.settings) if one.state == "problem"] == []


def test_backups_while_events_come_and_a_consumer_commits_lose_and_double_nothing(
    platform, open_platform, folder, monkeypatch
) -> None:
    feed(platform, "first")
    platform.consume()
    stop, sent, failures = threading.Event(), set(), []

    def send() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sent.update(feed(platform, f"batch{number}", 20))
            stop.wait(0.01)

    def consume() -> None:
        try:
            while not stop.is_set():
                platform.consume(Until(idle=0.05, budget=1.0), commit_seconds=0.01)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send), threading.Thread(target=consume)]
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
    maintain_table(platform.lake, "interactions")
    lose(platform)
    restore(platform.settings, folder)
    again = open_platform()
    again.consume()
    found = stored(again)
    assert max(found.values()) == 1
    # Whatever was acknowledged when the last backup began is there, and nothing that was never sent.
    assert before <= found.keys() <= sent | {f"first-{number}" for number in range(100)}
    assert [one for one in examine(again.settings) if one.state == "problem"] == []


def test_restored_files_are_known_to_the_next_backup(platform, open_platform, folder) -> None:
    feed(platform, "a")
    platform.consume()
    back_up(platform.settings, folder)
    lose(platform)
    restore(platform.settings, folder)
    close(open_platform())
    assert back_up(platform.settings, folder).copied_files == 1


def test_a_restore_that_breaks_off_is_gone_on_with(platform, open_platform, folder, monkeypatch) -> None:
    known = feed(platform, "a")
    platform.consume()
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


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_a_damaged_backup_is_found_and_never_restored(platform, folder, how: str) -> None:
    feed(platform, "a")
    platform.consume()
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
    platform.consume()
    back_up(platform.settings, folder)
    next(folder.rglob("*.parquet")).unlink()
    back_up(platform.settings, folder)
    verify(folder)


def test_a_lake_is_restored_to_its_own_path_only(platform, folder, tmp_path) -> None:
    feed(platform, "a")
    platform.consume()
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
    assert back_up(platform.settings, folder).point.dagster is False
    assert back_up(platform.settings, folder, dagster=True).point.dagster is True
    lose(platform)
    restore(platform.settings, folder)
    assert (held / "held.json").read_text() == "{}"
    assert (home / "logs" / "run.err").read_text() == "said"
    with closing(sqlite3.connect(home / "runs.db")) as restored:
        assert restored.execute("SELECT id FROM runs").fetchall() == [(7,)]
