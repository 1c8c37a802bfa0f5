"""A platform that is fed, read and lost, for tests of backups."""

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

from recsys_data.storage.query import connect
from recsys_data_tests.support.draining import Platform, view


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
