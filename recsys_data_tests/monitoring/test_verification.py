"""Verification reads the rows, so that it finds what ledgers that agree with each other hide."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.monitoring.verification import verify
from recsys_data.settings import Settings
from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.parquet import Selection, write_days
from recsys_data.storage.tables import Lake

Traffic = Callable[..., dict]
Ingest = Callable[[], None]


@pytest.fixture
def stored(traffic: Traffic, ingest: Ingest) -> None:
    traffic(400)
    ingest()


def faults(lake: Lake, log: EventLog, settings: Settings, deep: bool = False) -> dict[str, str]:
    return {one.check: one.found for one in verify(lake, log, settings, deep) if one.state != "ok"}


def first_row(lake: Lake, name: str) -> dict[str, Any]:
    return lake.table(name).scan(limit=1).to_arrow().to_pylist()[0]


def add_row(lake: Lake, name: str, like: dict[str, Any], **changes: Any) -> None:
    """Store one more row, and let the ledger count it."""
    table = lake.table(name)
    schema = table.scan(limit=0).to_arrow().schema
    row = pa.Table.from_pylist([{**like, **changes}], schema=schema)
    base = read_ledger(table)
    ledger = msgspec.structs.replace(base, rows=base.rows + 1, token="")
    commit(table, base, ledger, write_days(table, [Selection.all(row)]))


def lose_file(lake: Lake, name: str) -> None:
    """Lose a file of a table, and let the ledger agree."""
    table = lake.table(name)
    file = next(iter(table.scan().plan_files())).file
    base = read_ledger(table)
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(file)
    commit(table, base, msgspec.structs.replace(base, rows=base.rows - file.record_count, token=""), [])


@pytest.mark.usefixtures("stored")
def test_a_sound_lake_has_no_faults(lake: Lake, log: EventLog, settings: Settings) -> None:
    found = list(verify(lake, log, settings, deep=True))
    assert {one.state for one in found} == {"ok"}
    claims = {one.check: one.found for one in found}
    assert claims["event log"].startswith(f"{sum(log.count(p, 0) for p in log.partitions()):,} lines")
    ids = sum(len(lake.table(name).scan().to_arrow()) for name in ("interactions", "identities"))
    assert claims["deduplication index"] == f"{ids:,} ids, those of the primary tables"
    assert {f"rows of {n}" for n in ("contexts", "dead_letters", "identities", "interactions")} <= claims.keys()


def test_nothing_was_read_yet(lake: Lake, log: EventLog, settings: Settings) -> None:
    assert [one.found for one in verify(lake, log, settings)] == ["nothing was read yet"]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("harm", "claim"),
    [
        (lambda lake: add_row(lake, "contexts", first_row(lake, "contexts")), "rows of contexts"),
        (lambda lake: add_row(lake, "contexts", first_row(lake, "contexts"), log_offset=10**9), "events of contexts"),
        (lambda lake: add_row(lake, "interactions", first_row(lake, "interactions"), log_offset=10**9), "events"),
        (
            lambda lake: add_row(lake, "interactions", first_row(lake, "interactions"), event_id="x"),
            "rows of interactions",
        ),
        (
            lambda lake: add_row(
                lake,
                "dead_letters",
                first_row(lake, "dead_letters"),
                **{key: first_row(lake, "interactions")[key] for key in ("log_partition", "log_offset")},
            ),
            "outcomes",
        ),
        (lambda lake: lose_file(lake, "interactions"), "ledger"),
        (lambda lake: lose_file(lake, "dead_letters"), "log partition"),
        (lambda lake: lose_file(lake, "interactions"), "event log"),
    ],
    ids=[
        "line twice",
        "context alone",
        "id twice",
        "row invented",
        "two outcomes",
        "events",
        "letters",
        "events by the log",
    ],
)
def test_rows_that_are_lost_doubled_or_invented_are_found(
    lake: Lake, log: EventLog, settings: Settings, harm: Callable[[Lake], None], claim: str
) -> None:
    harm(lake)
    assert any(check.startswith(claim) for check in faults(lake, log, settings, deep=True))


@pytest.mark.usefixtures("stored")
def test_an_index_with_other_ids_than_the_tables_is_found(lake: Lake, log: EventLog, settings: Settings) -> None:
    (run,) = (settings.data_dir / "ingest" / "seen").glob("*.npy")
    keys = np.load(run)
    keys[0, 0] ^= np.uint64(1)
    np.save(run, keys)
    assert list(faults(lake, log, settings)) == ["deduplication index"]
    np.save(run, keys[:, 1:])
    assert "ids, and primary tables" in faults(lake, log, settings)["deduplication index"]


@pytest.mark.usefixtures("stored")
def test_the_command_ends_with_1_if_anything_is_wrong(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    done = CliRunner().invoke(cli, ["verify", "--deep"])
    assert (done.exit_code, "NOT BALANCED" in done.output) == (0, False)
    lose_file(lake, "interactions")
    done = CliRunner().invoke(cli, ["verify", "--json"])
    assert done.exit_code == 1
    ledger = next(one for one in json.loads(done.stdout) if one["check"] == "ledger")
    assert ledger["state"] == "problem"
    assert "lines were accepted, and primary tables hold" in ledger["found"]
