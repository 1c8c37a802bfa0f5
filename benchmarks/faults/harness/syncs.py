"""Whether what is acknowledged was synced first: each fsync and fdatasync of a process, against what needs one.

An append is acknowledged when `PartitionWriter.append` returns: then nothing written may still wait for its
fdatasync. A commit is the catalog's: before it every data and metadata file of the lake has to be synced, and after
the file the folder that names it. What is not is written to a file, a line each.
"""

import os
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from recsys_data.ingestion.streaming.log.embedded import segments
from recsys_data.ingestion.streaming.log.embedded.writer import PartitionWriter


class Syncs:
    """Watches this process until it ends."""

    def __init__(self, lake: Path, report: Path) -> None:
        self.lake = lake
        self.report = report
        self.dirty: set[int] = set()
        self.clock = 0
        self.synced: dict[str, int] = {}
        self.known = {str(path) for path in _files(lake)}
        self._watch_calls()
        self._watch_appends()
        self._watch_commits()

    def _watch_calls(self) -> None:
        plain = {name: getattr(os, name) for name in ("pwrite", "fsync", "fdatasync")}

        def pwrite(descriptor: int, data: Any, offset: int) -> int:
            self.dirty.add(descriptor)
            return plain["pwrite"](descriptor, data, offset)

        def synced(name: str) -> Any:
            def sync(descriptor: int) -> None:
                plain[name](descriptor)
                self.dirty.discard(descriptor)
                self.clock += 1
                self.synced[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = self.clock

            return sync

        os.pwrite, os.fsync, os.fdatasync = pwrite, synced("fsync"), synced("fdatasync")
        assert segments.os is os

    def _watch_appends(self) -> None:
        append = PartitionWriter.append

        def watched(writer: PartitionWriter, data: bytes) -> None:
            append(writer, data)
            self._tell("append", [f"descriptor {descriptor}" for descriptor in self.dirty])

        PartitionWriter.append = watched  # type: ignore[method-assign]

    def _watch_commits(self) -> None:
        commit = Session.commit

        def watched(session: Session) -> None:
            self._tell("commit", [str(path) for path in _files(self.lake) if not self._is_safe(path)])
            commit(session)

        Session.commit = watched  # type: ignore[method-assign]

    def _is_safe(self, path: Path) -> bool:
        # A folder is synced after its file, or the name could be lost.
        at = self.synced.get(str(path), 0)
        return str(path) in self.known or 0 < at < self.synced.get(str(path.parent), 0)

    def _tell(self, what: str, unsafe: list[str]) -> None:
        with self.report.open("a") as file:
            file.write(f"{what}\n")
            file.writelines(f"{what} before a sync of {one}\n" for one in unsafe)


def _files(lake: Path) -> list[Path]:
    """Data and metadata files; the catalog's database syncs itself."""
    return [path for kind in ("parquet", "avro", "json") for path in lake.rglob(f"*.{kind}")]
