"""A platform that is fed, read and lost, for tests of backups."""

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec

from recsys_data.storage.query import connect
from recsys_data_tests.support.platform import Platform, view


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


def as_version_1(folder: Path) -> None:
    """Write the point of a backup as the first version did."""
    point = msgspec.json.decode((folder / "point.json").read_bytes())
    rows = [(one["path"], one["target"], one["bytes"], one["mtime"], one["sha256"]) for one in point.pop("files")]
    with closing(sqlite3.connect(folder / "index.db")) as index:
        index.execute("CREATE TABLE copies (path, target, bytes, mtime, sha256)")
        index.execute("CREATE TABLE point (path)")
        index.execute("CREATE TABLE facts (json)")
        index.executemany("INSERT INTO copies VALUES (?, ?, ?, ?, ?)", rows)
        index.executemany("INSERT INTO point VALUES (?)", [row[:1] for row in rows])
        index.execute("INSERT INTO facts VALUES (?)", (msgspec.json.encode({**point, "version": 1}).decode(),))
        index.commit()
    for name in ("point.json", "copied.jsonl"):
        (folder / name).unlink()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
