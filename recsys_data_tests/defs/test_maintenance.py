"""Upkeep as Dagster runs it: by its schedule, over all tables, and over Dagster's own storage."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.defs.monitoring import instance as instance_defs
from recsys_data.defs.monitoring.instance import RUNS_KEPT, prune_runs
from recsys_data.defs.storage import maintenance as lake_defs
from recsys_data.errors import Transient
from recsys_data.settings import Settings
from recsys_data.storage.maintenance import compaction as maintenance
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.contract_files import builtin, write
from recsys_data_tests.support.rows import append, rows

UPKEEP = {"lake_upkeep", "dagster_upkeep", "retention"}
DAILY = dg.DailyPartitionsDefinition("2026-01-01", timezone="UTC")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    return open_lake(Settings.from_env(), load_contracts())


@pytest.fixture
def defs(lake) -> dg.Definitions:
    from recsys_data.definitions import defs

    return defs()


@pytest.fixture
def instance(tmp_path: Path):
    """Dagster's storage on the disk, as in a checkout."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield instance


def run_upkeep(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("upkeep").execute_in_process(instance=instance, raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult, name: str) -> dict:
    (event,) = result.asset_materializations_for_node(name)
    return {key: value.value for key, value in event.metadata.items()}


def feed(lake: Lake, count: int = 9, first: int = 0) -> None:
    """Commit dead letters of one past day, one at a time."""
    table = lake.table("dead_letters")
    for number in range(first, first + count):
        place = {"log_partition": [0], "log_offset": [number], "reason": ["none"]}
        given = rows(("e", 1)).rename_columns(["event_id", "rejected_at"])
        for name, values in place.items():
            given = given.append_column(name, pa.array(values))
        append(table, given, number + 1)


def tick(defs: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> bool:
    """Whether the schedule starts a run."""
    schedule = defs.resolve_schedule_def("upkeep_schedule")
    with dg.build_schedule_context(instance, resources={"lake": lake}) as context:
        return bool(schedule.evaluate_tick(context).run_requests)


def test_upkeep_is_scheduled_for_everything_of_its_group(defs):
    schedule = defs.resolve_schedule_def("upkeep_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("*/10 * * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = defs.resolve_job_def("upkeep")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == UPKEEP


def test_upkeep_runs_every_hour_and_sooner_when_many_files_came(defs, lake, instance, monkeypatch):
    assert tick(defs, instance, lake)
    monkeypatch.setattr(lake_defs, "MANY_FILES", 9)
    feed(lake)
    assert run_upkeep(defs, instance).success
    assert not tick(defs, instance, lake)
    feed(lake, 8, first=9)
    assert not tick(defs, instance, lake)
    feed(lake, 1, first=17)
    assert tick(defs, instance, lake)
    assert run_upkeep(defs, instance).success
    assert not tick(defs, instance, lake)
    now = time.time()
    monkeypatch.setattr(lake_defs.time, "time", lambda: now + 3590)
    assert tick(defs, instance, lake)


def test_live_files_are_counted_as_a_scan_finds_them(lake):
    feed(lake)
    assert maintenance.count_live_files(lake) == 9
    maintenance.maintain_table(lake, "dead_letters")
    assert maintenance.count_live_files(lake) == 1


def test_a_lake_that_is_not_there_yet_needs_no_upkeep(defs, lake, instance):
    result = run_upkeep(defs, instance)
    assert result.success
    assert metadata(result, "lake_upkeep")["files before"] == 0
    assert not lake.exists("interactions")
    assert metadata(result, "dagster_upkeep")["runs deleted"] == 0


def test_what_upkeep_did_is_reported_by_dataset(defs, lake, instance, monkeypatch):
    feed(lake)
    monkeypatch.setattr(maintenance, "SNAPSHOTS_KEPT", -timedelta(minutes=1))
    reported = metadata(run_upkeep(defs, instance), "lake_upkeep")
    assert (reported["files before"], reported["files after"], reported["files deleted"]) == (9, 1, 0)
    assert reported["snapshots expired"] > 8
    assert reported["bytes to be freed"] > 0
    assert "| dead_letters | 9 | 1 |" in reported["by dataset"]
    assert len(lake.table("dead_letters").scan().to_arrow()) == 9


def test_days_that_the_contract_no_longer_keeps_are_retired(tmp_path, monkeypatch, instance):
    document = builtin("dead_letters")
    document["slaProperties"].append({"property": "retention", "value": 30, "unit": "d"})
    write(tmp_path / "contracts", document)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(tmp_path / "contracts"))
    settings = Settings.from_env()
    lake = open_lake(settings, load_contracts(*settings.contract_dirs))
    feed(lake, 2)
    from recsys_data.definitions import defs

    reported = metadata(run_upkeep(defs(), instance), "retention")
    assert (reported["days expired"], reported["rows expired"]) == (1, 2)
    assert "| interactions | the beginning | 0 | 0 |" in reported["by dataset"]
    assert len(lake.table("dead_letters").scan().to_arrow()) == 0


def test_a_run_whose_process_is_asked_to_end_is_canceled(defs, lake, instance, monkeypatch):
    def stopped(*_):
        raise dg.DagsterExecutionInterruptedError

    feed(lake, 1)
    monkeypatch.setattr(maintenance, "maintain_table", stopped)
    run_upkeep(defs, instance)
    assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]


def test_a_table_that_cannot_be_kept_up_does_not_stop_the_others(defs, lake, instance, monkeypatch):
    feed(lake)
    lake.table("contexts")
    whole = maintenance.maintain_table

    def broken(lake, name):
        if name == "contexts":
            raise Transient("contexts keeps being rewritten by others. Try again later.")
        return whole(lake, name)

    monkeypatch.setattr(maintenance, "maintain_table", broken)
    result = run_upkeep(defs, instance)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "contexts: contexts keeps being rewritten by others" in str(failure.event_specific_data)
    assert "dead_letters: dead_letters" not in str(failure.event_specific_data)
    assert [len(list(lake.table(name).scan().plan_files())) for name in ("dead_letters", "contexts")] == [1, 0]


@dg.asset(partitions_def=DAILY)
def things(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("fail"):
        raise ValueError("failed")


@dg.asset
def whole() -> None:
    """Has no partitions."""


def run_of(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, day: str | None = None, **tags: str) -> str:
    result = dg.materialize([asset], partition_key=day, instance=instance, tags=tags, raise_on_error=False)
    return result.run_id


def traces(folder: Path, run_id: str) -> list[Path]:
    return [path for path in folder.rglob("*") if run_id in path.name]


def test_old_runs_go_but_for_those_that_hold_the_newest_of_a_partition(instance, tmp_path):
    superseded = [run_of(instance, things, "2026-01-01"), run_of(instance, whole)]
    failed = run_of(instance, things, "2026-01-02", fail="yes")
    needed = [run_of(instance, things, day) for day in ("2026-01-01", "2026-01-03")]
    needed += [run_of(instance, whole)]
    queued = instance.create_run_for_job(
        dg.define_asset_job("later").resolve(asset_graph=dg.Definitions([whole]).resolve_asset_graph())
    ).run_id
    key, now = dg.AssetKey("things"), datetime.now(UTC)
    partitions = instance.get_materialized_partitions(key)
    assert prune_runs(instance, now - timedelta(hours=1)) == (0, 0)
    assert traces(tmp_path, failed)
    assert prune_runs(instance, now + timedelta(minutes=1)) == (3, 3)
    assert {run.run_id for run in instance.get_runs()} == {*needed, queued}
    assert instance.get_materialized_partitions(key) == partitions == {"2026-01-01", "2026-01-03"}
    assert instance.get_latest_materialization_event(dg.AssetKey("whole")).run_id == needed[-1]
    assert [traces(tmp_path, run_id) for run_id in (*superseded, failed)] == [[], [], []]
    assert all(traces(tmp_path, run_id) for run_id in needed)
    assert prune_runs(instance, now + timedelta(minutes=1)) == (0, 3)
    assert timedelta(days=30) == RUNS_KEPT


def test_one_night_deletes_a_bounded_number_of_runs_oldest_first(instance, monkeypatch):
    runs = [run_of(instance, whole) for _ in range(4)]
    monkeypatch.setattr(instance_defs, "MOST", 2)
    monkeypatch.setattr(instance_defs, "PAGE", 1)
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert prune_runs(instance, later) == (2, 0)
    assert {run.run_id for run in instance.get_runs()} == set(runs[2:])
    assert prune_runs(instance, later) == (1, 1)


def test_a_crash_while_a_run_is_deleted_is_healed_by_the_next_night(instance, tmp_path, monkeypatch):
    first, last = run_of(instance, whole), run_of(instance, whole)
    later = datetime.now(UTC) + timedelta(minutes=1)
    for owner, step in ((instance.compute_log_manager, "delete_logs"), (instance, "delete_run")):
        with monkeypatch.context() as patch:

            def crash(*_, **__):
                raise RuntimeError("crash")

            patch.setattr(owner, step, crash)
            with pytest.raises(RuntimeError, match="crash"):
                prune_runs(instance, later)
    assert prune_runs(instance, later) == (1, 1)
    assert traces(tmp_path, first) == []
    assert [run.run_id for run in instance.get_runs()] == [last]
