"""The simulated disk keeps what was synced, and nothing else for certain."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_data_tests.simulation.disk import Disk, Entry

TRIES = 40
Outcomes = set[tuple[tuple[str, bytes], ...]]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "state").mkdir()
    made = Disk(tmp_path / "state")
    made.settle()
    return made


def sync(disk: Disk, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    disk.synced(descriptor)
    os.close(descriptor)


def outcomes(disk: Disk) -> Outcomes:
    """What may be left after a power failure: names and contents of files."""
    found: Outcomes = set()
    for seed in range(TRIES):
        target = disk.folder.with_name(f"left-{seed}")
        disk.survive(target, random.Random(seed))
        files = sorted(path for path in target.rglob("*") if path.is_file())
        found.add(tuple((str(path.relative_to(target)), path.read_bytes()) for path in files))
        shutil.rmtree(target)
    return found


def test_what_was_synced_survives(disk: Disk) -> None:
    (disk.folder / "a").write_bytes(b"one")
    sync(disk, disk.folder / "a")
    sync(disk, disk.folder)
    assert outcomes(disk) == {(("a", b"one"),)}


def test_a_name_is_lost_until_its_folder_is_synced(disk: Disk) -> None:
    (disk.folder / "a").write_bytes(b"one")
    sync(disk, disk.folder / "a")
    assert outcomes(disk) == {(), (("a", b"one"),)}


def test_a_folder_is_lost_with_all_that_is_in_it_until_its_parent_is_synced(disk: Disk) -> None:
    (disk.folder / "b").mkdir()
    (disk.folder / "b/a").write_bytes(b"one")
    sync(disk, disk.folder / "b/a")
    sync(disk, disk.folder / "b")
    assert outcomes(disk) == {(), (("b/a", b"one"),)}


def test_bytes_that_were_not_synced_are_kept_lost_torn_or_zero(disk: Disk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"one")
    sync(disk, path)
    sync(disk, disk.folder)
    path.write_bytes(b"one,two")
    left = {dict(files)["a"] for files in outcomes(disk)}
    assert all(content.startswith(b"one") for content in left)
    assert {b"one", b"one,two"} < left
    assert any(b"\0" in content for content in left)
    assert any(content in (b"one,", b"one,t", b"one,tw") for content in left)


def test_a_rename_may_be_undone_as_a_whole_until_its_folder_is_synced(disk: Disk) -> None:
    for name in ("a", "b"):
        (disk.folder / name).write_bytes(name.encode())
        sync(disk, disk.folder / name)
    sync(disk, disk.folder)
    (disk.folder / "b").replace(disk.folder / "a")
    assert outcomes(disk) == {(("a", b"a"), ("b", b"b")), (("a", b"b"),)}
    sync(disk, disk.folder)
    assert outcomes(disk) == {(("a", b"b"),)}


def test_a_removed_file_may_come_back_as_it_was_synced(disk: Disk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"one")
    sync(disk, path)
    sync(disk, disk.folder)
    path.unlink()
    assert outcomes(disk) == {(), (("a", b"one"),)}


def test_pages_that_a_failed_sync_forgot_are_zero_whatever_is_synced_later(disk: Disk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"one")
    sync(disk, path)
    sync(disk, disk.folder)
    path.write_bytes(b"onetwo")
    with path.open("rb") as file:
        disk.sync_failed(file.fileno())
    sync(disk, path)
    assert outcomes(disk) == {(("a", b"one\0\0\0"),)}


def test_pages_that_are_written_again_after_a_failed_sync_are_synced_by_the_next(disk: Disk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"two")
    sync(disk, disk.folder)
    with path.open("rb") as file:
        disk.sync_failed(file.fileno())
        disk.written(file.fileno(), 0, 3)
    sync(disk, path)
    assert outcomes(disk) == {(("a", b"two"),)}


@pytest.mark.parametrize(
    ("durable", "afterwards", "left"),
    [
        (False, lambda disk: None, {b"before", b"after"}),
        (False, lambda disk: sync(disk, disk.folder), {b"after"}),
        (True, lambda disk: None, {b"after"}),
    ],
    ids=["journal comes back", "folder synced since", "synchronous = EXTRA"],
)
def test_the_last_commit_of_a_database_is_undone_unless_its_journals_removal_is_durable(
    disk: Disk, durable: bool, afterwards: Callable[[Disk], None], left: set[bytes]
) -> None:
    path = disk.folder / "catalog.db"
    path.write_bytes(b"after")
    disk.committed(path, b"before", durable)
    afterwards(disk)
    assert {dict(files)["catalog.db"] for files in outcomes(disk)} == left


def test_what_somebody_else_delivered_is_durable_and_nothing_beside_it(disk: Disk) -> None:
    (disk.folder / "b/c").mkdir(parents=True)
    (disk.folder / "b/c/a").write_bytes(b"one")
    (disk.folder / "b/other").write_bytes(b"two")
    disk.settle_below(disk.folder / "b/c")
    assert {"b/c/a"} in [{name for name, _ in files} for files in outcomes(disk)]
    assert all(("b/c/a", b"one") in files for files in outcomes(disk))


def test_a_start_after_a_power_failure_finds_everything_durable(disk: Disk) -> None:
    (disk.folder / "a").write_bytes(b"one")
    image = disk.folder.with_name("image")
    image.mkdir()
    (image / "b").write_bytes(b"two")
    disk.replace(image)
    assert outcomes(disk) == {(("b", b"two"),)}
    assert [type(entry) for names in disk.names.values() for entry in names.values()] == [Entry]
