"""Damaged files are called by their names, and what they hold is not passed on as if it were sound."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from recsys_data.contracts import Contract, Kind
from recsys_data.durable import local_path
from recsys_data.errors import Permanent
from recsys_data.storage.integrity import corrupt_data, corrupt_files, manifest_of
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows

if TYPE_CHECKING:
    from pyiceberg.table import Table

DAY = 20454
Open = Callable[[], Lake]


@pytest.fixture
def open_(open_notes: OpenLake, notes: Contract) -> Open:
    """A lake with three commits of one day; opened anew each time, as by another process."""

    def open_() -> Lake:
        return open_notes({"notes": replace(notes, kind=Kind.EVENTS)})

    table = open_().table("notes")
    for number in range(3):
        append(table, rows(*((f"e-{number}-{n}", 0.0) for n in range(200))), number + 1)
    return open_


def there(location: str) -> Path:
    path = local_path(location)
    assert path is not None
    return path


def flip(path: Path, at: int, length: int = 4) -> None:
    whole = bytearray(path.read_bytes())
    whole[at : at + length] = bytes(255 - byte for byte in whole[at : at + length])
    path.write_bytes(whole)


def a_data_file(table: "Table") -> Path:
    return there(min(task.file.file_path for task in table.scan().plan_files()))


def test_flipped_bits_of_a_data_file_are_found_or_change_nothing(open_: Open) -> None:
    table = open_().table("notes")
    path = a_data_file(table)
    sound = path.read_bytes()
    assert corrupt_files(table, 60) == (3, [])
    values = pq.read_table(path).to_pydict()
    found = 0
    for at in range(40, 1200, 29):
        flip(path, at)
        read, faults = corrupt_files(table, 60)
        if faults:
            found += 1
            assert read == 2
            assert faults[0].startswith(f"{path} is damaged: ")
        else:
            # Headers of pages hold some bytes that nobody needs.
            assert pq.read_table(path).to_pydict() == values
        path.write_bytes(sound)
    assert found > 20


def test_compaction_does_not_copy_damage(open_: Open) -> None:
    table = open_().table("notes")
    path = a_data_file(table)
    flip(path, 200)
    before = table.metadata_location
    with pytest.raises(Permanent, match=f"{path.name} is damaged.*Restore"):
        compact_day(table, DAY)
    assert table.refresh().metadata_location == before


def test_a_consumer_that_cannot_read_ids_names_the_file(open_: Open) -> None:
    table = open_().table("notes")
    path = a_data_file(table)
    error = RuntimeError("no words")
    files = [str(there(task.file.file_path)) for task in table.scan().plan_files()]
    assert corrupt_data(table, files, error) is error
    flip(path, 200)
    assert path.name in str(corrupt_data(table, files, error))
    path.unlink()
    reported = str(corrupt_data(table, files, error))
    assert f"{path} is not there" in reported
    assert str(manifest_of(table, str(path))) in reported


@pytest.mark.parametrize("harm", ["flipped", "zeros", "emptied"])
@pytest.mark.parametrize("kind", ["metadata", "manifest list", "manifest"])
def test_damaged_metadata_is_called_by_its_name(open_: Open, kind: str, harm: str) -> None:
    table = open_().table("notes")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    manifests = [manifest.manifest_path for manifest in snapshot.manifests(table.io)]
    location = {"metadata": table.metadata_location, "manifest list": snapshot.manifest_list, "manifest": manifests[0]}
    path = there(location[kind])
    if harm == "flipped":
        flip(path, path.stat().st_size // 2, 16)
    else:
        path.write_bytes(b"" if harm == "emptied" else bytes(path.stat().st_size))
    lake = open_()
    assert lake.exists("notes")
    with pytest.raises(Permanent, match=f"{path.name} is damaged"), connect(lake, ["notes"]):
        pass


def test_a_metadata_file_that_vanishes_while_it_is_loaded_is_looked_up_again(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = SqlCatalog.load_table
    calls = []

    def late(catalog: SqlCatalog, identifier: tuple[str, str]) -> "Table":
        calls.append(identifier)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file", "00007.metadata.json")
        return load(catalog, identifier)

    lake = open_()
    monkeypatch.setattr(SqlCatalog, "load_table", late)
    assert lake.table("notes").current_snapshot() is not None
    assert len(calls) == 2


def test_deleting_what_is_gone_is_no_failure(open_: Open) -> None:
    table = open_().table("notes")
    path = Path(f"{table.location()}/metadata/there-is-none.metadata.json")
    table.io.delete(str(path))
    path.write_text("x")
    table.io.delete(str(path))
    assert not path.exists()
