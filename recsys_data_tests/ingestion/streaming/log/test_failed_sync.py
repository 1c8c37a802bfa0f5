"""After a sync that failed, no position of the log comes to mean another line, whatever a power failure takes."""

import errno
import os
from pathlib import Path

import pytest

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.log.embedded import writer
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.ingestion.streaming.log.embedded.segments import sync


@pytest.mark.parametrize("left", [b"", b"\0" * 10], ids=["cut off", "zeros"])
def test_lines_that_were_read_and_lost_leave_their_positions_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    log = EmbeddedLog(tmp_path, partitions=1)
    log.append([b"durable"])
    failures = [OSError(errno.EIO, os.strerror(errno.EIO))]

    def failing(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        sync(descriptor)

    monkeypatch.setattr(writer, "sync", failing)
    with pytest.raises(Transient):
        log.append([b"taken by a reader"])
    read = log.read(0, 0, 1000)
    assert [read.line(row) for row in range(len(read))] == [b"durable", b"taken by a reader"]
    log.close()
    # The power fails: what was never synced is gone.
    (first, *_) = sorted((tmp_path / "0").glob("*.ndjson"))
    first.write_bytes(b"durable\n" + left)
    again = EmbeddedLog(tmp_path, partitions=1)
    again.append([b"taken by a reader"])
    rest = again.read(0, read.end, 1000)
    assert [rest.line(row) for row in range(len(rest))] == [b"taken by a reader"]
    again.close()
