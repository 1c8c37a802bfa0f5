import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.contracts.model import Kind
from recsys_data.contracts.rules import session
from recsys_data.errors import Transient
from recsys_data.ingestion.streaming import stream_writer as writer
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.ingestion.streaming.latency import latency_of
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.monitoring.status import Status, freshness_of, read_status, reasons_since
from recsys_data.settings import Settings
from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import LEDGER, Latency, read_ledger
from recsys_data.storage.query import data_files, file_path, relation
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.contract_files import load, of_stream

Traffic = Callable[..., dict[str, Any]]
Ingest = Callable[[], None]


def as_json(status: Status) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(status))


def test_a_new_folder_has_a_status_and_still_no_tables(log: EventLog, lake: Lake, settings: Settings) -> None:
    assert as_json(read_status(log, lake, settings)) == {
        "log": {"lag_events": 0, "lag_bytes": 0},
        "ledger": {
            "read": 0,
            "accepted": 0,
            "duplicates": 0,
            "dead_letters": 0,
            "replayed": 0,
            "discarded": 0,
            "balanced": True,
            "faults": [],
        },
        "dead_letters_by_reason": {},
        "latency": {"p50_s": None, "p95_s": None},
        "answers": {"events": 0, "p50_s": None, "p95_s": None},
        "datasets": {
            name: {"rows": 0, "partitions": 0, "latest": None, "freshness": "empty"} for name in lake.contracts
        },
    }
    assert not any(lake.exists(name) for name in lake.contracts)


def test_the_status_is_the_truth(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, ingest: Ingest
) -> None:
    truth = traffic(2000)
    waiting = read_status(log, lake, settings).log
    assert waiting.lag_events == 2000
    assert waiting.lag_bytes == sum(log.end_offsets().values())
    ingest()
    status = read_status(log, lake, settings)
    assert (status.log.lag_events, status.log.lag_bytes) == (0, 0)
    assert status.ledger.balanced
    assert (status.ledger.read, status.ledger.accepted) == (2000, truth["accepted"])
    assert status.dead_letters_by_reason == truth["dead_letters"]
    assert list(status.dead_letters_by_reason.values()) == sorted(truth["dead_letters"].values(), reverse=True)
    interactions = status.datasets["interactions"]
    assert (interactions.rows, interactions.freshness) == (truth["interactions"], "fresh")
    moments = [status.datasets[name].latest for name in ("interactions", "identities")]
    assert max(filter(None, moments)) == datetime.fromisoformat(truth["last_event_ts"])
    assert status.latency.p50_s is not None and 0 < status.latency.p50_s <= (status.latency.p95_s or 0)


def test_partitions_are_the_days_that_hold_rows(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, ingest: Ingest
) -> None:
    traffic(500)
    ingest()
    days = lake.table("interactions").scan(selected_fields=("event_ts",)).to_arrow()["event_ts"].to_pylist()
    status = read_status(log, lake, settings)
    assert status.datasets["interactions"].partitions == len({moment.date() for moment in days}) > 1


def change_ledger(lake: Lake, name: str, **changes: int) -> None:
    table = lake.table(name)
    ledger = msgspec.structs.replace(read_ledger(table), **changes)
    with table.transaction() as transaction:
        transaction.set_properties({LEDGER: msgspec.json.encode(ledger).decode()})


def lose_a_file(lake: Lake, name: str, having: str = "true") -> int:
    """Take the smallest file with such rows out of a table; returns how many rows it held."""
    table = lake.table(name)
    # A scan plans by statistics, which say nothing of most columns: a planned file need not have such a row.
    with session() as connection:
        found = {
            path
            for path in data_files(table)
            if connection.sql(f"FROM ({relation(table, [path])}) WHERE {having} LIMIT 1").fetchall()
        }
    files = [task.file for task in table.scan().plan_files() if file_path(task.file) in found]
    file = min(files, key=lambda one: (one.record_count, one.file_path))
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(file)
    return file.record_count


@pytest.mark.parametrize("fault", ["file lost", "rows miscounted", "line without outcome", "line counted as accepted"])
def test_any_disagreement_unbalances_the_ledger(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, ingest: Ingest, fault: str
) -> None:
    traffic(300)
    ingest()
    ledger = read_ledger(lake.table("interactions"))
    if fault == "file lost":
        lose_a_file(lake, "interactions")
    elif fault == "rows miscounted":
        change_ledger(lake, "identities", rows=read_ledger(lake.table("identities")).rows + 1)
    elif fault == "line without outcome":
        change_ledger(lake, "contexts", read=ledger.read + 1)
    else:
        for name in ("interactions", "identities"):
            change_ledger(lake, name, read=ledger.read + 1, accepted=ledger.accepted + 1)
    assert not read_status(log, lake, settings).ledger.balanced


SHOWN = of_stream("shown", {"name": "type", "logicalType": "string"}, rowWhen="type = 'impression'")


def test_an_event_may_be_a_row_of_several_datasets(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, ingest: Ingest, tmp_path: Path
) -> None:
    traffic(1500)
    ingest()
    more = open_lake(settings, load(tmp_path / "contracts", SHOWN))
    for seed in (1, 2):
        for _ in consume(log, more, settings, Until()):
            pass
        status = read_status(log, more, settings)
        assert status.ledger.balanced
        assert status.datasets["shown"].rows > 0
        traffic(500, seed=seed)
    # Some events are gone, and the count of rows was made to agree. Impressions are still rows of `shown`.
    lost = lose_a_file(more, "interactions", "type = 'purchase'")
    change_ledger(more, "interactions", rows=read_ledger(more.table("interactions")).rows - lost)
    assert status.datasets["shown"].rows > lost, "rows of both together hide the loss"
    assert not read_status(log, more, settings).ledger.balanced


def test_a_crash_between_two_commits_is_not_called_a_loss(
    log: EventLog,
    lake: Lake,
    settings: Settings,
    traffic: Traffic,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traffic(300)
    ingest()
    traffic(300, seed=1)

    def failing(table: Any, *arguments: Any) -> None:
        if table.name()[-1] == "interactions":
            raise Transient("the disk is full")
        commit(table, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Transient):
        patch.setattr(writer, "commit", failing)
        ingest()
    between = read_status(log, lake, settings)
    assert between.ledger.balanced
    assert between.ledger.read == 300
    ingest()
    after = read_status(log, lake, settings)
    assert after.ledger.balanced
    assert after.ledger.read == 600


def test_the_status_is_balanced_while_a_consumer_runs(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, contracts: Mapping[str, Any]
) -> None:
    stop = threading.Event()

    def append() -> None:
        seed = 0
        while not stop.wait(0.1):
            traffic(100, seed=(seed := seed + 1))

    def store() -> None:
        with hold_lease(settings, 0):
            for _ in consume(log, open_lake(settings, contracts), settings, Until(idle=60)):
                if stop.is_set():
                    return

    threads = [threading.Thread(target=append), threading.Thread(target=store)]
    for thread in threads:
        thread.start()
    try:
        seen = [read_status(log, lake, settings)]
        while len(seen) < 30 and seen[-1].ledger.read < 3000:
            seen.append(read_status(log, lake, settings))
    finally:
        stop.set()
        traffic(1, seed=10**6)
        for thread in threads:
            thread.join()
    assert all(status.ledger.balanced for status in seen)
    assert len({status.ledger.read for status in seen}) > 1


def test_a_log_that_was_replaced_is_an_error(
    log: EventLog, lake: Lake, settings: Settings, traffic: Traffic, ingest: Ingest
) -> None:
    from recsys_data.errors import Permanent

    traffic(50)
    ingest()
    for segment in settings.log_dir.rglob("*.ndjson"):
        segment.write_bytes(b"")
    with pytest.raises(Permanent, match="lost data"):
        read_status(log, lake, settings)


def test_reasons_since_a_position_are_those_of_later_lines(
    log: EventLog, lake: Lake, traffic: Traffic, ingest: Ingest
) -> None:
    traffic(1000)
    ingest()
    ends = dict(log.end_offsets())
    assert reasons_since(lake, ends) == {}
    later = traffic(1000, seed=1)
    ingest()
    assert reasons_since(lake, ends) == later["dead_letters"]


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "waiting", "expected"),
    [
        (timedelta(minutes=1), 5, "fresh"),
        (timedelta(minutes=15), 5, "fresh"),
        (timedelta(minutes=16), 5, "stale"),
        (timedelta(days=9), 0, "fresh"),
    ],
)
def test_a_table_is_stale_when_it_does_not_keep_up(
    contracts: Mapping[str, Any], age: timedelta, waiting: int, expected: str
) -> None:
    assert freshness_of(NOW - age, contracts["interactions"], waiting, NOW) == expected


def test_a_table_that_no_events_feed_is_judged_by_its_age_alone(contracts: Mapping[str, Any]) -> None:
    snapshot = replace(contracts["interactions"], kind=Kind.TABLE)
    assert freshness_of(NOW - timedelta(minutes=16), snapshot, 0, NOW) == "stale"


deciles = st.lists(st.floats(0, 1000), min_size=10, max_size=10).map(lambda values: tuple(sorted(values)))


@given(st.lists(deciles, min_size=1, max_size=5))
def test_latencies_of_equal_commits_are_plain_quantiles(commits: list[tuple[float, ...]]) -> None:
    found = latency_of(tuple(Latency(0.0, 7, values) for values in commits))
    expected = np.quantile([value for values in commits for value in values], [0.5, 0.95], method="hazen")
    assert (found.p50_s, found.p95_s) == pytest.approx(tuple(expected), abs=1e-3)


@given(st.lists(st.tuples(st.integers(1, 9), deciles), min_size=1, max_size=5), st.integers(2, 50))
def test_latencies_depend_on_shares_not_on_counts(commits: list[tuple[int, tuple[float, ...]]], factor: int) -> None:
    once = latency_of(tuple(Latency(0.0, events, values) for events, values in commits))
    often = latency_of(tuple(Latency(0.0, events * factor, values) for events, values in commits))
    assert (once.p50_s, once.p95_s) == pytest.approx((often.p50_s, often.p95_s), abs=1e-3)


def test_a_large_slow_commit_outweighs_small_fast_ones() -> None:
    fast = tuple(Latency(0.0, 1, (0.1,) * 10) for _ in range(20))
    assert latency_of((*fast, Latency(0.0, 1000, (60.0,) * 10))).p50_s == 60.0
