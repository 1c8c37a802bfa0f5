"""Files as DuckDB reads them: several threads of one session share a file."""

import threading
from pathlib import Path
from typing import Any

import pytest

from recsys_data.storage.iceberg.duckdb_files import WarehouseFiles
from recsys_data.storage.iceberg.file_io import DurableFileIO


@pytest.fixture
def files() -> WarehouseFiles:
    return WarehouseFiles(DurableFileIO())


def test_what_is_written_is_there_when_it_is_closed(files: WarehouseFiles, tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    with files.open(path, "wb") as written:
        written.write(b"0123456789")
    assert (files.exists(path), files.isfile(f"{path}.not")) == (True, False)
    assert files.size(path) == 10
    opened = files.open(path)
    assert files.size(path) == 10
    assert (opened.read(3), opened.tell(), opened.read(), opened.read(1)) == (b"012", 3, b"3456789", b"")
    opened.close()
    assert files.glob(path) == [path]


def test_a_thread_reads_from_where_it_set_the_place_whatever_others_do(files: WarehouseFiles, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(bytes(range(200)))
    opened: Any = files.open(str(tmp_path / "a.parquet"))
    opened.seek(4)
    found: list[bytes] = []

    def other() -> None:
        opened.seek(100)
        found.append(opened.read(2))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert (found, opened.read(2), opened.tell()) == ([b"de"], bytes([4, 5]), 6)
