"""Tables follow their contracts as far as what is stored allows."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys_data.contracts import Contract
from recsys_data.errors import ContractError, UserError
from recsys_data.settings import Settings
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.contract_files import EVENT_ID, EVENT_TS, NOTE, load_one, odcs
from recsys_data_tests.support.rows import append, rows

TYPES = {
    "string": "string",
    "integer": "long",
    "number": "double",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
    "object": "string",
    "array": "string",
}


def changed(folder: Path, *columns: dict[str, Any]) -> dict[str, Contract]:
    return {"notes": load_one(folder / "changed", odcs("notes", *columns))}


def test_a_table_is_created_when_first_asked_for(open_notes: OpenLake) -> None:
    lake = open_notes()
    assert not lake.exists("notes")
    table = lake.table("notes")
    assert lake.exists("notes")
    assert [field.name for field in table.spec().fields] == ["event_ts_day"]
    assert {field.name: (str(field.field_type), field.required) for field in table.schema().fields} == {
        "event_id": ("string", True),
        "event_ts": ("timestamptz", True),
        "note": ("string", False),
    }


def test_every_type_has_its_column_and_its_description(open_notes: OpenLake, tmp_path: Path) -> None:
    columns: list[dict[str, Any]] = [
        {"name": f"a_{kind}", "logicalType": kind, "description": f"One {kind}."} for kind in TYPES
    ]
    columns.append({"name": "raw", "logicalType": "string", "physicalType": "binary"})
    columns.append({"name": "wall", "logicalType": "timestamp", "logicalTypeOptions": {"timezone": False}})
    table = open_notes(changed(tmp_path, EVENT_ID, EVENT_TS, *columns)).table("notes")
    found = {field.name: (str(field.field_type), field.doc) for field in table.schema().fields}
    assert {name: found[f"a_{name}"] for name in TYPES} == {k: (v, f"One {k}.") for k, v in TYPES.items()}
    assert (found["raw"][0], found["wall"][0]) == ("binary", "timestamp")


def test_several_processes_may_start_at_once(open_notes: OpenLake) -> None:
    lakes = [open_notes() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda lake: lake.table("notes"), lakes))
    assert len({table.metadata.table_uuid for table in tables}) == 1


def test_new_optional_columns_are_added_and_old_files_read_with_nothing_in_them(
    open_notes: OpenLake, tmp_path: Path
) -> None:
    append(open_notes().table("notes"), rows(("a", 0), note=["x"]), 1)
    colour = {"name": "colour", "logicalType": "string", "description": "Which colour."}
    lake = open_notes(changed(tmp_path, EVENT_ID, EVENT_TS, colour, NOTE, {"name": "size", "logicalType": "integer"}))
    append(lake.table("notes"), rows(("b", 0), note=["y"], colour=["red"], size=[3]), 2)
    with connect(lake, ["notes"]) as connection:
        found = connection.sql("SELECT event_id, note, colour, size FROM notes ORDER BY 1").fetchall()
    assert found == [("a", "x", None, None), ("b", "y", "red", 3)]
    assert sorted(lake.table("notes").scan().to_arrow()["colour"].to_pylist(), key=str) == [None, "red"]
    assert lake.table("notes").schema().find_field("colour").doc == "Which colour."


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((EVENT_ID, EVENT_TS), "column note is stored but no longer in the contract"),
        ((EVENT_ID, EVENT_TS, NOTE | {"logicalType": "integer"}), "column note is stored as string, and the contract"),
        ((EVENT_ID, EVENT_TS, NOTE | {"required": True}), "column note may be empty in what is stored"),
        (
            (EVENT_ID, EVENT_TS, NOTE, {"name": "x", "logicalType": "string", "required": True}),
            "new column x is required",
        ),
    ],
)
def test_what_stored_rows_cannot_follow_is_refused_and_nothing_changes(
    open_notes: OpenLake, tmp_path: Path, columns: tuple[dict[str, Any], ...], message: str
) -> None:
    before = open_notes().table("notes").metadata
    lake = open_notes(changed(tmp_path, *columns))
    with pytest.raises(ContractError, match=f"notes.odcs.yaml: {message}.*Undo the change, or give"):
        lake.table("notes")
    assert open_notes().table("notes").metadata == before


def test_a_required_column_may_become_optional(open_notes: OpenLake, tmp_path: Path) -> None:
    table = open_notes(changed(tmp_path, EVENT_ID, EVENT_TS, NOTE | {"required": True})).table("notes")
    append(table, rows(("a", 0), note=["x"]), 1)
    lake = open_notes()
    append(lake.table("notes"), rows(("b", 0), note=pa.nulls(1, pa.string())), 2)
    with connect(lake, ["notes"]) as connection:
        assert connection.sql("SELECT event_id, note FROM notes ORDER BY 1").fetchall() == [("a", "x"), ("b", None)]


def test_another_event_time_is_refused(open_notes: OpenLake, tmp_path: Path) -> None:
    other = {"name": "other_ts", "logicalType": "timestamp", "required": True}
    open_notes(changed(tmp_path, EVENT_ID, EVENT_TS, other)).table("notes")
    moved = (EVENT_ID, EVENT_TS | {"partitioned": False}, other | {"partitioned": True})
    with pytest.raises(ContractError, match="partitioned by event_ts, and the contract now asks for other_ts"):
        open_notes(changed(tmp_path, *moved)).table("notes")


@pytest.mark.parametrize("name", ["with blanks", "50%", "a#b", "a?b", "it's", "größe", "a&b=c", "a+b"])
def test_the_lake_may_lie_in_a_folder_of_any_name(tmp_path: Path, notes: Contract, name: str) -> None:
    lake = open_lake(Settings(dir=str(tmp_path / name)), {"notes": notes})
    append(lake.table("notes"), rows(("a", 0), ("b", 1)), 1)
    with connect(lake, ["notes"]) as connection:
        assert connection.sql("SELECT count(*) FROM notes").fetchall() == [(2,)]
    assert len(lake.table("notes").scan().to_arrow()) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "contracts"] == [name]


def test_a_folder_that_cannot_hold_a_lake_is_explained(tmp_path: Path, notes: Contract) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The lake folder .*file/lake cannot be used: .*Set RECSYS_DATA_DIR"):
        open_lake(Settings(dir=str(tmp_path / "file")), {"notes": notes})
    (tmp_path / "data" / "lake" / "catalog.db").mkdir(parents=True)
    with pytest.raises(UserError, match=r"The catalog .*catalog.db cannot be opened"):
        open_lake(Settings(dir=str(tmp_path / "data")), {"notes": notes})


def test_a_lake_knows_a_table_by_its_contract_only(open_notes: OpenLake) -> None:
    lake: Lake = open_notes()
    with pytest.raises(KeyError):
        lake.table("nothing")


def test_a_lake_is_opened_by_several_for_the_first_time_at_once(tmp_path: Path) -> None:
    contracts = changed(tmp_path, EVENT_ID, EVENT_TS)
    for number in range(5):
        settings = Settings(dir=str(tmp_path / str(number)))
        with ThreadPoolExecutor(8) as pool:
            lakes = list(pool.map(lambda _, at=settings: open_lake(at, contracts), range(8)))
        assert not any(lake.exists("notes") for lake in lakes)
