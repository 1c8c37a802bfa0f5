"""A state folder that earlier code wrote is read, continued and reconciled by the code of today."""

import json
import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.ingestion.batch.history.update import overlaps, refresh_history
from recsys_data.ingestion.batch.snapshot import take_snapshot
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.monitoring.verification import verify
from recsys_data.storage.query import connect
from recsys_data_tests.fixtures.upgrade.make_state import PLACE
from recsys_data_tests.support.platform import Platform, view

STATES = sorted((Path(__file__).parent / "fixtures" / "upgrade").glob("state-*.tar.gz"))
ADDED = ("model", "variant", "score", "propensity")
NEW = {"model": "als-3", "variant": "B", "score": 0.75, "propensity": 0.2}


def unpack(state: Path, tmp_path: Path) -> Path:
    """Unpack a state to a path as long as that where it was written, and write that path into its files."""
    folder = tmp_path / ("x" * (len(str(PLACE)) - len(str(tmp_path)) - 1))
    with tarfile.open(state) as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".avro", ".db"):
            path.write_bytes(path.read_bytes().replace(bytes(PLACE), bytes(folder)))
    return folder


@pytest.fixture(params=STATES, ids=lambda path: path.name)
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(unpack(request.param, tmp_path), load_contracts(), landing_rest_seconds=0)
    yield platform
    platform.close()


def columns(platform: Platform) -> dict[str, tuple]:
    return {row["event_id"]: tuple(row[name] for name in ADDED) for row in platform.rows()}


def test_rows_that_were_stored_have_no_value_in_columns_that_were_added(platform: Platform) -> None:
    assert columns(platform) == dict.fromkeys(("v1", "v2", "v3", "v5"), (None,) * len(ADDED))
    kept = {row["event_id"]: row["properties"] for row in platform.rows()}
    assert json.loads(kept["v2"]) == {"score": 0.5}


def test_the_stream_continues_where_it_was_interrupted(platform: Platform) -> None:
    platform.append([view("v8", day=3, **NEW), view("v1"), view("odd", propensity=0)])
    platform.consume()
    # v6 is of the interrupted commit, and was read again; the score of v7 was in the log before it had a column.
    old = dict.fromkeys(("v1", "v2", "v3", "v5", "v6"), (None,) * len(ADDED))
    assert columns(platform) == {**old, "v7": (None, None, 0.5, None), "v8": tuple(NEW.values())}
    assert platform.ids("identities") == ["id1", "id2"]
    assert sorted(row["reason"] for row in platform.rows("dead_letters")) == [
        "malformed_json",
        "malformed_json",
        "missing_item",
        "propensity_out_of_range",
    ]
    platform.assert_whole()
    assert reconcile_lake(platform.open_lake(), platform.settings).balanced
    findings = verify(platform.open_lake(), platform.log, platform.settings, deep=True)
    assert [finding for finding in findings if finding.state != "ok"] == []


def test_snapshots_and_their_history_continue(platform: Platform) -> None:
    lake, name = platform.open_lake(), "item_catalog"
    folder = platform.settings.data_dir / "landing" / name / "2026-01-03"
    folder.mkdir()
    (folder / "part.jsonl").write_text('{"item_id": "i1", "title": "Soap"}\n{"item_id": "i3", "title": "Fig"}\n')
    taken = take_snapshot(lake, platform.settings, name, date(2026, 1, 3), accept=True)
    assert (taken.compared.rows, taken.compared.new, taken.compared.lost) == (2, 1, 1)
    updated = refresh_history(lake, name, platform.settings.staging_dir / f"{name}_history")
    # Snapshots are recognised by the paths of their files, which have changed: the history is made of all of them.
    assert updated.days == [date(2026, 1, day) for day in (1, 2, 3)]
    assert overlaps(lake, name) == 0
    with connect(lake, [f"{name}_history"]) as connection:
        states = connection.sql(f"SELECT item_id, title, is_current FROM {name}_history ORDER BY ALL").fetchall()
    assert states == [("i1", "Soap", True), ("i2", "Red rose", False), ("i2", "Rose", False), ("i3", "Fig", True)]
