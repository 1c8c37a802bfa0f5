"""Small files are whole, whoever looks, whatever happens."""

import os
from pathlib import Path

import pytest

from recsys_data import durable as files
from recsys_data.durable import local_path, make_folder, scratch, sync_all, sync_entries, write_atomically


def test_locations_on_this_machine_are_paths_and_others_are_none() -> None:
    assert local_path("/a b/c%20d") == Path("/a b/c%20d")
    assert local_path("file:///a/b") == Path("/a/b")
    assert local_path("file:/a%20b") == Path("/a b")
    assert local_path("s3://bucket/a") is None


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert [(one.name, one.read_bytes()) for one in path.parent.iterdir()] == [("file.json", b"two")]

    def full(_: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"three")
    assert path.read_bytes() == b"two"


def test_folders_of_a_process_that_died_are_synced_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_file", synced.append)
    monkeypatch.setattr(files, "_on_disk", {tmp_path})
    folder = tmp_path / "made" / "before"
    folder.mkdir(parents=True)
    sync_entries(folder)
    assert synced == [folder.parent, tmp_path]
    sync_entries(folder)
    make_folder(folder)
    assert len(synced) == 2
    folder.rmdir()
    make_folder(folder / "new")
    assert synced[2:] == [folder, folder.parent]


def test_many_files_and_their_folders_are_all_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"day={number}" / "a.parquet" for number in range(5)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"x")
    synced: list[Path] = []
    monkeypatch.setattr(files, "MANY", 3)
    monkeypatch.setattr(files, "sync_file", synced.append)
    sync_all(paths)
    assert sorted(synced) == sorted([tmp_path, *paths, *(path.parent for path in paths)])
    # Files before the folders that name them.
    assert set(synced[:5]) == set(paths)


def test_a_missing_file_is_reported_as_such_and_the_scratch_folder_is_removed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), scratch(tmp_path, "work") as folder:
        (folder / "half").touch()
        raise FileNotFoundError("gone")

    assert list(tmp_path.iterdir()) == []
