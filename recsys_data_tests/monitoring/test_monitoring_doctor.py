"""A healthy deployment has no problem, and each thing that can be broken is found and said."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recsys_data.contracts import Contract
from recsys_data.ingestion.batch.quarantine import Compared, SnapshotResult, quarantine
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.embedded.segments import segment_firsts, segment_path
from recsys_data.monitoring.doctor import Finding, examine, machine
from recsys_data.monitoring.doctor.findings import bounded
from recsys_data.settings import Settings
from recsys_data.storage.ledger import LEDGER, read_ledger
from recsys_data.storage.tables import Lake
from recsys_data_tests.support.platform import view
from recsys_data_tests.support.snapshot_contracts import stores

Ingest = Callable[[], None]


def found(settings: Settings, check: str) -> list[Finding]:
    return [one for one in examine(settings) if one.check == check]


def states(settings: Settings) -> dict[str, str]:
    return {one.check: one.state for one in examine(settings) if one.state != "ok"}


NO_SNAPSHOTS = {
    f"{what} {name}": "warning"
    for name in ("item_catalog", "user_profiles")
    for what in ("snapshots of", "source landing of")
}


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder but the lock that says who consumes."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("drain.")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_before_its_first_use_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(dir=str(tmp_path / "state"))
    assert states(settings) == {}
    assert not settings.data_dir.exists()
    settings.data_dir.mkdir()
    assert states(settings) == NO_SNAPSHOTS
    assert content(settings.data_dir) == {}


def test_a_healthy_deployment_has_no_problem_and_is_left_as_it_is(
    log: EventLog, settings: Settings, traffic: Callable[..., dict], ingest: Ingest
) -> None:
    traffic(300)
    ingest()
    before = content(settings.data_dir)
    assert states(settings) == NO_SNAPSHOTS
    assert content(settings.data_dir) == before
    assert all(one.found and (one.advice or one.state == "ok") for one in examine(settings))


def test_waiting_events_are_reported_with_their_age_and_who_drains(
    log: EventLog, settings: Settings, lake: Lake, ingest: Ingest
) -> None:
    log.append([view("a", received_at=datetime.now(UTC).isoformat())])
    (lag,) = found(settings, "lag")
    assert lag.state == "warning" and "nobody is ingesting" in lag.found and "bytes wait" in lag.found
    with hold_lease(settings, 0):
        (lag,) = found(settings, "lag")
        assert lag.state == "ok" and f"process {os.getpid()} is ingesting" in lag.found
    ingest()
    log.append([view("b", received_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())])
    (lag,) = found(settings, "lag")
    assert (lag.state, "ingest" in lag.advice) == ("problem", True)


def break_data_file(settings: Settings, lake: Lake, how: Callable[[Path], Any]) -> Path:
    path = Path(next(iter(lake.table("interactions").scan().plan_files())).file.file_path)
    how(path)
    return path


def test_a_data_file_that_is_gone_or_cut_is_found(
    log: EventLog, settings: Settings, lake: Lake, ingest: Ingest
) -> None:
    log.append([view("a"), view("b", day=2)])
    ingest()
    path = break_data_file(settings, lake, lambda path: os.truncate(path, 10))
    (one,) = found(settings, "table interactions")
    assert one.state == "problem" and f"{path} has 10 bytes; expected" in one.found
    path.unlink()
    (one,) = found(settings, "table interactions")
    assert one.state == "problem" and f"{path} is missing" in one.found and "backup" in one.advice


def test_an_unbalanced_ledger_is_found(log: EventLog, settings: Settings, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a")])
    ingest()
    table = lake.table("interactions")
    wrong = msgspec.structs.replace(read_ledger(table), rows=7)
    with table.transaction() as transaction:
        transaction.set_properties({LEDGER: msgspec.json.encode(wrong).decode()})
    (ledger,) = found(settings, "ledger")
    assert ledger.state == "problem" and "interactions counted 7 rows and holds 1" in ledger.found


def segments(settings: Settings, log: EventLog) -> list[Path]:
    """The segments of the partition that was written."""
    written = next(partition for partition, end in log.end_offsets().items() if end)
    folder = settings.log_dir / str(written)
    return [segment_path(folder, first) for first in segment_firsts(folder)]


def test_a_torn_tail_is_reported_from_a_missing_segment(
    log: EventLog, settings: Settings, lake: Lake, ingest: Ingest
) -> None:
    log.append([view("a")])
    with segments(settings, log)[-1].open("ab") as file:
        file.write(b'{"event_id": "to')
    (one,) = found(settings, "event log")
    assert one.state == "warning" and "16 bytes of a line that was never finished" in one.found
    end = max(log.end_offsets().values())
    later = segments(settings, log)[-1].with_name(f"{end + 500:020d}.ndjson")
    os.truncate(segments(settings, log)[-1], end)
    later.write_bytes(b"{}\n")
    (one,) = found(settings, "event log")
    assert one.state == "problem" and f"bytes {end:,} to {end + 500:,} are missing" in one.found


def test_positions_beyond_the_log_are_found(log: EventLog, settings: Settings, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a"), view("b")])
    ingest()
    os.truncate(segments(settings, log)[-1], len(view("a")) + 1)
    (one,) = found(settings, "positions")
    assert one.state == "problem" and "lies beyond the end" in one.found
    for path in settings.log_dir.rglob("*"):
        if path.is_file():
            path.unlink()
    for path in settings.log_dir.iterdir():
        path.rmdir()
    (one,) = found(settings, "positions")
    assert one.state == "problem" and "a log that is not there" in one.found


def test_a_catalog_that_is_none_is_found_and_hides_nothing_before_it(settings: Settings) -> None:
    settings.lake_dir.mkdir(parents=True)
    (settings.lake_dir / "catalog.db").write_bytes(b"this is no database, whatever its name says" * 100)
    reported = {one.check: one for one in examine(settings)}
    assert reported["state"].state == "problem" and "not a database" in reported["state"].found
    assert reported["contracts"].state == "ok"


def test_a_table_that_cannot_follow_its_contract_is_found(
    log: EventLog, settings: Settings, lake: Lake, ingest: Ingest, contracts: Mapping[str, Contract], tmp_path: Path
) -> None:
    log.append([view("a")])
    ingest()
    folder = tmp_path / "contracts"
    folder.mkdir()
    text = contracts["interactions"].path.read_text()
    (folder / "interactions.odcs.yaml").write_text(text.replace("- name: tag\n", "- name: label\n"))
    before = content(settings.lake_dir)
    changed = msgspec.structs.replace(settings, contracts=str(folder))
    reported = [one for one in found(changed, "table interactions") if one.state == "problem"]
    assert [one.found for one in reported] == ["column tag is stored but no longer in the contract"]
    assert content(settings.lake_dir) == before, "to look at a table must not change it"
    (folder / "interactions.odcs.yaml").write_text("kind: DataContract")
    reported = found(changed, "contracts")
    assert reported[0].state == "problem" and "interactions.odcs.yaml" in reported[0].found


@pytest.mark.parametrize("column", ["received_at", "ingested_at"])
def test_a_clock_that_is_off_is_found(
    log: EventLog, settings: Settings, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=2)
    given: dict[str, Any] = {"received_at": ahead.isoformat()} if column == "received_at" else {}
    log.append([view("a", **given)])
    if column == "ingested_at":
        from recsys_data.ingestion.streaming import stream_writer as writer

        class Later(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return ahead

        monkeypatch.setattr(writer, "datetime", Later)
    ingest()
    (clock,) = found(settings, "clock")
    assert clock.state == ("warning" if column == "received_at" else "problem")


def test_a_snapshot_that_is_held_back_is_reported_with_what_to_do(settings: Settings, lake: Lake) -> None:
    import pyarrow as pa

    empty = pa.table({"item_id": pa.array([], pa.string())})
    day = date(2026, 1, 2)
    taken = SnapshotResult("item_catalog", day, datetime.now(UTC), Compared(1), violation="sudden_loss: all are gone")
    quarantine(settings, taken, empty.to_reader, empty.to_reader)
    reported = found(settings, "snapshots of item_catalog")
    assert "that of 2026-01-02 is on hold: sudden_loss" in reported[0].found
    assert "recsys-data snapshot accept item_catalog 2026-01-02" in reported[0].advice


def of_database(folder: Path, location: str) -> str:
    """A folder with the contract of a dataset that comes from this database."""
    server = {"server": "shop", "type": "custom", "location": location}
    columns = {"property": "table", "value": "things"}
    folder.mkdir(exist_ok=True)
    document = stores(servers=[{**server, "customProperties": [columns]}])
    (folder / "stores.odcs.yaml").write_text(json.dumps(document))
    return str(folder)


def test_a_database_is_reached_or_why_not_is_said_without_its_password(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE things (store_id TEXT, city TEXT)")
    database.close()
    check = "source shop of stores"
    for location, state, said in (
        (f"sqlite:///{path}", "ok", "answers"),
        (f"sqlite:///{path}.gone", "problem", "no such file"),
        ("postgresql://me:hunter2@127.0.0.1:9/shop?connect_timeout=1", "problem", ""),
    ):
        given = msgspec.structs.replace(settings, contracts=of_database(tmp_path / "contracts", location))
        (one,) = found(given, check)
        assert (one.state, said in one.found) == (state, True), one
        assert "hunter2" not in one.found + one.advice


def test_a_check_that_hangs_is_given_up() -> None:
    release = threading.Event()
    begun = time.monotonic()
    reported = bounded("disk", lambda: [Finding("disk", "ok", "late")] if release.wait(30) else [], seconds=0.1)
    release.set()
    assert time.monotonic() - begun < 5
    assert (reported[0].state, reported[0].found) == ("problem", "no answer within 0.1 s")


def test_a_check_that_fails_is_a_problem_of_its_own() -> None:
    (reported,) = bounded("disk", lambda: [Finding("disk", "ok", str(1 // 0))])
    assert (reported.state, reported.found) == ("problem", "ZeroDivisionError: integer division or modulo by zero")


def test_limits_of_the_machine_are_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "LOW_FREE", 2**80)
    assert {one.check: one.state for one in machine.state_folder(settings)}["disk space"] == "warning"
    monkeypatch.setattr(machine, "LEAST_FREE", 2**80)
    assert {one.check: one.state for one in machine.state_folder(settings)}["disk space"] == "problem"
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (256, 256))
    assert "ulimit -n" in machine.open_files(settings)[0].advice
    (tmp_path / "file").write_text("")
    below = Settings(dir=str(tmp_path / "file"))
    assert machine.state_folder(below)[0].state == "problem"
    monkeypatch.setattr(
        machine.importlib.metadata, "requires", lambda name: ["duckdb<1", "no-such-thing", "x; extra=='y'"]
    )
    (one,) = machine.packages(settings)
    assert one.state == "problem" and "no-such-thing is missing" in one.found and "expected <1" in one.found
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "runs.db").write_bytes(b"x" * 2048)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(machine, "LARGE_STORAGE", 1024)
    assert machine.dagster_storage(settings)[0].state == "warning"


def test_keys_are_counted_and_not_shown(settings: Settings) -> None:
    (one,) = machine.write_keys(msgspec.structs.replace(settings, write_keys="secret-1,secret-2"))
    assert one.found.startswith("2 set") and "secret" not in one.found


def test_where_alerts_go_is_said_and_the_url_is_not(tmp_path: Path) -> None:
    (alerts,) = found(Settings(dir=str(tmp_path)), "alerts")
    assert alerts.state == "ok" and "logged only" in alerts.found
    (alerts,) = found(Settings(dir=str(tmp_path), alert_url="https://hooks.example.org/secret"), "alerts")
    assert "as json" in alerts.found and "secret" not in alerts.found
