"""The batch side as Dagster sees it, on an ephemeral instance, landing folders and SQLite."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from recsys_data.contracts.rules import session
from recsys_data.contracts.servers import Reference
from recsys_data.defs.asset_specs import daily_partitions
from recsys_data.defs.contract_datasets import definitions
from recsys_data.defs.resources import resources
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.ingestion.batch.partitions import expected_day, missing_days, snapshot_date_of, stored_days
from recsys_data.ingestion.batch.quarantine import quarantined
from recsys_data.ingestion.first_day import first_partition_day, remember
from recsys_data.monitoring.quality import ReferenceCounts, reference_counts
from recsys_data.storage.tables import Lake
from recsys_data_tests.support.contract_files import builtin, custom
from recsys_data_tests.support.rows import append, at, rows
from recsys_data_tests.support.snapshot_contracts import CITY, STORE_ID, limit, stores
from recsys_data_tests.support.snapshots import Batch

NAMES = ("stores", "stores_rejected", "stores_history")
LIMITS = (limit("sudden_loss", maxShareLost=0.4),)


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A platform with one more dataset, `stores`, of which nothing but the contract is known."""
    batch = Batch.of(tmp_path, stores(STORE_ID, CITY, quality=LIMITS))
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(tmp_path / "contracts"))
    remember(batch.settings, date(2025, 12, 1))
    return batch


@pytest.fixture
def defs(batch: Batch) -> dg.Definitions:
    return dg.Definitions.merge(definitions(batch.contracts, batch.settings), resources())


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(defs: dg.Definitions, instance: dg.DagsterInstance, days: str, names=NAMES, **config: Any):
    first, _, last = days.partition("...")
    job = defs.resolve_implicit_global_asset_job_def()
    options: dict[str, Any] = {"partition_key": first}
    if last:
        options = {"tags": {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}}
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in names],
        run_config={"ops": {"stores_snapshot": {"config": config}}},
        raise_on_error=False,
        **options,
    )


def tick(batch: Batch, defs: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """What the sensor of landing folders answers."""
    sensor = defs.resolve_sensor_def("landed_days_sensor")
    resources = {"lake": batch.lake, "settings": batch.settings}
    with dg.build_sensor_context(instance, cursor, definitions=defs, resources=resources) as context:
        return sensor.evaluate_tick(context)


def partitions(instance: dg.DagsterInstance, name: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(name)))


def some(count: int, city: str = "Rome") -> list[dict[str, Any]]:
    return [{"store_id": f"s{n}", "city": city} for n in range(count)]


def failure(result) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.message + str(event.step_failure_data.error.cause)


def test_one_file_makes_a_dataset_with_assets_schedule_checks_and_history(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for name in NAMES:
        node = graph.get(dg.AssetKey(name))
        assert node.partitions_def == daily_partitions(date(2025, 12, 1))
        assert node.group_name == "ingestion"
    assert graph.get(dg.AssetKey("stores_history")).parent_keys == {dg.AssetKey("stores")}
    assert graph.get(dg.AssetKey("stores")).parent_keys == {dg.AssetKey(["sources", "stores", "landing"])}
    policy = graph.get(dg.AssetKey("stores")).freshness_policy
    assert (policy.deadline_cron, policy.timezone) == ("0 6 * * *", "UTC")
    checks = {key.name for key in graph.get_check_keys_for_assets({dg.AssetKey(name) for name in NAMES})}
    assert checks == {"change_within_limits", "days_complete", "rows_accepted", "periods_do_not_overlap", "drift"}
    assert defs.resolve_schedule_def("stores_schedule").cron_schedule == "0 0 * * *"


def test_a_day_is_taken_and_becomes_history(batch: Batch, defs, instance) -> None:
    batch.land("stores", "2026-01-01", [*some(3), {"city": "nowhere"}])
    result = run(defs, instance, "2026-01-01")
    assert result.success
    assert {name: partitions(instance, name) for name in NAMES} == dict.fromkeys(NAMES, {"2026-01-01"})
    reported = instance.get_latest_materialization_event(dg.AssetKey("stores")).asset_materialization.metadata
    assert (reported["dagster/partition_row_count"].value, reported["new"].value, reported["rejected"].value) == (
        3,
        0,
        1,
    )
    assert reported["as of"].value == "2026-01-02T00:00:00+00:00"
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {
        "change_within_limits": True,
        "days_complete": False,
        "rows_accepted": False,
        "periods_do_not_overlap": True,
        "drift": True,
    }
    assert [row["store_id"] for row in batch.rows("stores_history", "store_id")] == ["s0", "s1", "s2"]


def test_days_without_a_file_are_missing_and_not_empty(batch: Batch, defs, instance) -> None:
    for day in ("2026-01-01", "2026-01-03"):
        batch.land("stores", day, some(2))
    assert run(defs, instance, "2026-01-01...2026-01-05").success
    for name in NAMES:
        assert partitions(instance, name) == {"2026-01-01", "2026-01-03"}
    assert missing_days(batch.lake, batch.contracts["stores"]) == [date(2026, 1, 2)]


def test_the_history_alone_follows_what_was_stored_without_dagster(batch: Batch, defs, instance) -> None:
    for day, city in (("2026-01-01", "Rome"), ("2026-01-02", "Oslo")):
        batch.land("stores", day, some(1, city))
        batch.take("stores", day)
    assert run(defs, instance, "2026-01-02", ["stores_history"]).success
    assert [row["city"] for row in batch.rows("stores_history", "valid_from")] == ["Rome", "Oslo"]
    assert partitions(instance, "stores_history") == {"2026-01-01", "2026-01-02"}
    assert partitions(instance, "stores") == set()


def test_a_held_snapshot_fails_its_run_and_is_accepted_by_the_next(batch: Batch, defs, instance) -> None:
    for day, count in (("2026-01-01", 10), ("2026-01-02", 4)):
        batch.land("stores", day, some(count))
    assert run(defs, instance, "2026-01-01").success
    result = run(defs, instance, "2026-01-02")
    assert not result.success
    assert "recsys-data snapshot accept stores 2026-01-02" in failure(result)
    assert "6 of 10 rows of 2026-01-01 are gone (60.0%)" in failure(result)
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["change_within_limits"] is False
    assert partitions(instance, "stores") == {"2026-01-01"}
    assert len(quarantined(batch.settings, "stores")) == 1
    assert run(defs, instance, "2026-01-02", accept=True).success
    assert partitions(instance, "stores") == partitions(instance, "stores_history") == {"2026-01-01", "2026-01-02"}
    assert quarantined(batch.settings, "stores") == []


def test_a_day_that_no_source_has_fails_with_the_days_that_there_are(batch: Batch, defs, instance) -> None:
    batch.land("stores", "2026-01-01", some(1))
    result = run(defs, instance, "2026-01-02")
    assert not result.success
    assert "2026-01-01" in failure(result)
    result = run(defs, instance, "2026-02-01...2026-02-03")
    assert "have none of the 3 days" in failure(result)
    assert stored_days(batch.lake, "stores") == []


def test_a_schedule_takes_the_day_that_is_over_or_what_is_known_now(batch: Batch, defs, tmp_path: Path) -> None:
    moment = datetime(2026, 3, 2, 0, 30, tzinfo=UTC)
    with dg.build_schedule_context(
        scheduled_execution_time=moment, repository_def=defs.get_repository_def()
    ) as context:
        request = defs.resolve_schedule_def("stores_schedule").evaluate_tick(context).run_requests[0]
    assert request.partition_key == "2026-03-01"
    server = {
        "server": "shop",
        "type": "custom",
        "location": "sqlite:///x.db",
        "customProperties": custom(table="stores"),
    }
    live = Batch.of(tmp_path, stores(servers=[server])).contracts["stores"]
    assert snapshot_date_of(live, moment) == date(2026, 3, 2)


def test_a_day_is_due_at_its_deadline(batch: Batch) -> None:
    contract = batch.contracts["stores"]
    assert expected_day(contract, datetime(2026, 3, 2, 5, 59, tzinfo=UTC)) == date(2026, 2, 28)
    assert expected_day(contract, datetime(2026, 3, 2, 6, 0, tzinfo=UTC)) == date(2026, 3, 1)


def test_an_old_day_does_not_make_a_dataset_look_complete(batch: Batch, defs, instance) -> None:
    due = expected_day(batch.contracts["stores"], datetime.now(UTC))
    for day, complete in ((date(2025, 12, 1), False), (due, True), (date(2025, 12, 2), True)):
        batch.land("stores", day.isoformat(), some(2))
        result = run(defs, instance, day.isoformat())
        checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
        assert checks["days_complete"].passed is complete
    assert checks["days_complete"].metadata["newest"].value == due.isoformat()


def test_a_sample_shows_no_personal_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance) -> None:
    batch = Batch.of(tmp_path, builtin("user_profiles"))
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(tmp_path / "contracts"))
    batch.land("user_profiles", "2026-01-01", [{"user_id": "secret-id", "city": "secret-city", "country": "IT"}])
    defs = dg.Definitions.merge(definitions(batch.contracts, batch.settings), resources())
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("user_profiles")], partition_key="2026-01-01"
    )
    assert result.success
    reported = instance.get_latest_materialization_event(dg.AssetKey("user_profiles")).asset_materialization.metadata
    assert "IT" in str(reported["sample"].value)
    assert "secret" not in str(reported)


def test_references_are_checked_against_every_key_there_ever_was(batch: Batch) -> None:
    lake: Lake = batch.lake
    for day, count in (("2026-01-01", 3), ("2026-01-02", 2)):
        batch.land("stores", day, some(count))
        batch.take("stores", day)
    refresh_history(lake, "stores", batch.folder / "staging")
    reference, since = Reference("item_id", "stores", "store_id", 0.1), datetime(2026, 1, 1, tzinfo=UTC)

    def counted(since: datetime) -> ReferenceCounts:
        with session() as connection:
            return reference_counts(connection, lake, batch.contracts["interactions"], reference, since)

    counts = counted(since)
    assert (counts.rows, counts.unknown, counts.known_keys, counts.share) == (0, 0, 3, 0.0)
    items = ["s0", "s2", "nowhere", None]
    stored = rows(*((f"e{n}", 0) for n in range(4)), item_id=items, ingested_at=[at(1)] * 4)
    append(lake.table("interactions"), stored, 1)
    counts = counted(since)
    # s2 is gone by now, and was known once; an event without an item is not judged.
    assert (counts.rows, counts.unknown, counts.known_keys) == (3, 1, 3)
    assert counts.share == pytest.approx(1 / 3)
    assert counted(at(2)).rows == 0


def test_days_that_landed_are_taken_once_they_were_seen_twice(batch: Batch, defs, instance) -> None:
    cursor = tick(batch, defs, instance).cursor
    assert tick(batch, defs, instance, cursor).run_requests == []
    for day in ("2026-01-01", "2026-01-03", datetime.now(UTC).date().isoformat()):
        batch.land("stores", day, some(2))
    first = tick(batch, defs, instance, cursor)
    assert first.run_requests == []
    reported = {event.asset_key.to_user_string(): event.metadata["days waiting"].value for event in first.asset_events}
    assert reported == {"sources/stores/landing": 2}
    (request,) = tick(batch, defs, instance, first.cursor).run_requests
    assert [request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")] == [
        "2026-01-01",
        "2026-01-03",
    ]
    assert {key.to_user_string() for key in request.asset_selection} == set(NAMES)
    assert run(defs, instance, "2026-01-01...2026-01-03").success
    assert tick(batch, defs, instance, first.cursor).run_requests == []


def test_days_that_landed_before_the_first_partition_are_taken_after_a_reload(batch: Batch, defs, instance) -> None:
    for day in ("2025-11-05", "2026-01-02"):
        batch.land("stores", day, some(1))
    first = tick(batch, defs, instance)
    assert "stores: days from 2025-11-05 on have no partition" in first.skip_message
    (request,) = tick(batch, defs, instance, first.cursor).run_requests
    assert request.partition_key == "2026-01-02"
    assert first_partition_day(batch.settings) == date(2025, 11, 1)
    reloaded = dg.Definitions.merge(definitions(batch.contracts, batch.settings), resources())
    (request,) = tick(batch, reloaded, instance, tick(batch, reloaded, instance).cursor).run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2025-11-05"
    assert run(reloaded, instance, "2025-11-05...2026-01-02").success
    assert partitions(instance, "stores") == {"2025-11-05", "2026-01-02"}


def test_a_day_whose_files_still_change_is_not_asked_for(batch: Batch, defs, instance) -> None:
    batch.land("stores", "2026-01-01", some(2), "part.jsonl.tmp")
    first = tick(batch, defs, instance, tick(batch, defs, instance).cursor)
    assert first.run_requests == [], "there is a folder, and no file to read"
    batch.land("stores", "2026-01-01", some(1))
    second = tick(batch, defs, instance, first.cursor)
    batch.land("stores", "2026-01-01", some(2))
    third = tick(batch, defs, instance, second.cursor)
    assert (second.run_requests, third.run_requests) == ([], [])
    (request,) = tick(batch, defs, instance, third.cursor).run_requests
    assert request.partition_key == "2026-01-01"


def test_checks_can_be_run_by_themselves(batch: Batch, defs, instance) -> None:
    batch.land("stores", "2026-01-01", [*some(3), {"city": "nowhere"}])
    batch.take("stores", "2026-01-01")
    graph = defs.resolve_asset_graph()
    keys = graph.get_check_keys_for_assets({dg.AssetKey(name) for name in NAMES})
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*keys))
    only = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("checks")
    result = only.execute_in_process(instance=instance)
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
        "change_within_limits": True,
        "days_complete": False,
        "rows_accepted": False,
        "periods_do_not_overlap": True,
        "drift": True,
    }
    assert partitions(instance, "stores") == set()


def test_days_taken_without_dagster_are_reported(batch: Batch, defs, instance) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        batch.land("stores", day, some(2))
        batch.take("stores", day)
    refresh_history(batch.lake, "stores", batch.folder / "staging")
    sensor = defs.resolve_sensor_def("lake_partitions_sensor")
    with dg.build_sensor_context(
        instance, definitions=defs, resources={"lake": batch.lake, "settings": batch.settings}
    ) as context:
        reported = sensor.evaluate_tick(context).asset_events
    found = {(event.asset_key.to_user_string(), event.partition) for event in reported}
    assert found == {(name, f"2026-01-0{day}") for name in ("stores", "stores_history") for day in (1, 2)}
