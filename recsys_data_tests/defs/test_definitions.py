"""The code location as Dagster sees it, on an ephemeral instance and embedded backends."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
import pytest

from recsys_data.contracts import Kind, load_contracts
from recsys_data.contracts.features.datasets import stream_of
from recsys_data.defs.monitoring import check_job as check_defs
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.consumer_lease import hold_lease
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake
from recsys_data.training.sets.declared import OTHER_ASSETS, load_sets

STREAM = {"interactions", "contexts", "identities", "dead_letters"}
# Checks of streams that have a run of their own once a day.
DAILY = {"bots", "drift", "feedback_loop", "parity"}


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    return Settings.from_env()


@pytest.fixture
def defs(settings) -> dg.Definitions:
    from recsys_data.definitions import defs

    return defs()


@pytest.fixture
def log(settings):
    log = open_log(settings)
    yield log
    log.close()


@pytest.fixture
def lake(settings):
    return open_lake(settings, load_contracts())


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def view(when: datetime, **fields) -> bytes:
    event = {
        "event_id": str(uuid.uuid4()),
        "type": "view",
        "user_id": "u",
        "item_id": "i",
        "event_ts": when.isoformat(),
    }
    return msgspec.json.encode({**event, "received_at": datetime.now(UTC).isoformat(), **fields})


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def tick(defs, name, instance, settings, log, lake, cursor=None):
    sensor = defs.resolve_sensor_def(name)
    resources = {"settings": settings, "event_log": log, "lake": lake}
    with dg.build_sensor_context(instance, cursor, definitions=defs, resources=resources) as context:
        return sensor.evaluate_tick(context)


def materialize(defs, instance, names, partition, **config):
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in names],
        partition_key=partition,
        run_config={"ops": {"event_stream": {"config": config}}},
        raise_on_error=False,
    )


def test_everything_that_is_defined_loads_as_one_code_location(defs):
    dg.Definitions.validate_loadable(defs)
    defs.get_repository_def().load_all_definitions()


def test_names_of_assets_that_no_training_set_can_have_are_listed(defs, lake):
    names = {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys() if len(key.path) == 1}
    assert names - lake.contracts.keys() - load_sets().keys() == OTHER_ASSETS


def test_every_stream_dataset_is_an_asset_with_partitions_freshness_and_checks(defs):
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} >= STREAM
    assert dg.AssetKey("event_log") in graph.external_asset_keys
    for name in STREAM:
        node = graph.get(dg.AssetKey(name))
        assert node.partitions_def.has_partition_key(today())
        assert node.freshness_policy is not None
        assert "ledger_balances" in {key.name for key in graph.get_check_keys_for_assets({dg.AssetKey(name)})}
        columns = {column.name for column in node.metadata["dagster/column_schema"].columns}
        assert columns == {column.name for column in load_contracts()[name].columns}


def test_personal_columns_are_marked_in_the_schema(defs):
    schema = defs.resolve_asset_graph().get(dg.AssetKey("interactions")).metadata["dagster/column_schema"]
    marks = {column.name: column.tags.get("classification") for column in schema.columns}
    assert marks["user_id"] == "personal"
    assert marks["item_id"] is None


def test_materializing_by_hand_consumes_what_waits_and_can_be_repeated(defs, instance, settings, log, lake):
    log.append([view(datetime.now(UTC)), b"no JSON", view(datetime.now(UTC), context={"page": "home"})])
    for read in (3, 0):
        result = materialize(defs, instance, ["interactions"], today())
        assert result.success
        last = instance.get_latest_materialization_event(dg.AssetKey("interactions")).asset_materialization
        assert last.partition == today()
        assert last.metadata["dagster/partition_row_count"].value == 2
        assert last.metadata["events waiting"].value == 0
        assert last.metadata["events read"].value in (read, 0)
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    expected = (
        "ledger_balances",
        "row_rules",
        "volume",
        "known_item_id",
        "known_user_id",
        "price_as_in_item_catalog",
        *DAILY,
    )
    assert checks == dict.fromkeys((*expected, *DAILY), True)


def test_days_and_tables_beyond_the_run_are_reported_too(defs, instance, settings, log, lake):
    earlier = datetime.now(UTC) - timedelta(days=3)
    log.append([view(datetime.now(UTC)), view(earlier, context={"page": "home"}), b"no JSON"])
    materialize(defs, instance, ["interactions"], today())
    assert instance.get_materialized_partitions(dg.AssetKey("interactions")) == {today(), earlier.date().isoformat()}
    assert instance.get_materialized_partitions(dg.AssetKey("contexts")) == {earlier.date().isoformat()}
    assert instance.get_materialized_partitions(dg.AssetKey("dead_letters")) == {today()}


def test_materializing_by_hand_makes_the_day_compact(defs, instance, settings, log, lake):
    from recsys_data.storage.query import data_files

    for _ in range(3):
        log.append([view(datetime.now(UTC))])
        list(consume(log, lake, settings, Until()))
    assert len(data_files(lake.table("interactions"))) == 3
    materialize(defs, instance, ["interactions"], today())
    assert len(data_files(lake.table("interactions"))) == 1


def test_a_sample_shows_no_personal_value(defs, instance, settings, log, lake):
    log.append([view(datetime.now(UTC), user_id="secret-user")])
    materialize(defs, instance, ["interactions"], today())
    sample = instance.get_latest_materialization_event(dg.AssetKey("interactions")).asset_materialization.metadata[
        "sample"
    ]
    assert "item_id" in sample.value
    assert "secret-user" not in sample.value


def test_the_ledger_check_sees_a_missing_row(defs, instance, settings, log, lake):
    log.append([view(datetime.now(UTC)), view(datetime.now(UTC))])
    list(consume(log, lake, settings, Until()))
    lake.table("interactions").delete("item_id = 'i'")
    result = materialize(defs, instance, ["interactions"], today())
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks["ledger_balances"] is False


def test_dead_letters_are_shown_by_reason_and_given_up_by_a_job(defs, instance, settings, log, lake):
    now = datetime.now(UTC)
    log.append([view(now), view(now, user_id=None), view(now, user_id=None), b"Ada, not JSON"])
    assert materialize(defs, instance, STREAM, today()).success
    event = instance.get_latest_materialization_event(dg.AssetKey("dead_letters"))
    shown = event.asset_materialization.metadata["by reason"].value
    assert "| missing_actor | interactions | 2 |" in shown
    assert "Ada" not in shown
    job = defs.resolve_job_def("replay_dead_letters")

    def launched(**config):
        run_config = {"ops": {"replay_or_discard": {"config": config}}}
        return job.execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)

    assert not launched(discard=True).success
    assert not launched(since="yesterday").success
    assert launched().success
    observed = instance.fetch_observations(dg.AssetKey("dead_letters"), limit=1).records[0].asset_observation.metadata
    assert observed["replayed"].value == 0
    assert observed["not replayed, by reason"].value == {"missing_actor": 2, "malformed_json": 1}
    assert launched(reason="missing_actor", discard=True).success
    assert lake.table("dead_letters").scan().to_arrow()["reason"].to_pylist() == ["malformed_json"]


@pytest.mark.parametrize(("bad", "failing"), [(1, set()), (6, {"dead_letter_rate", "dead_letters_by_reason"})])
def test_checks_warn_of_many_dead_letters_by_reason(defs, instance, settings, log, lake, bad, failing):
    now = datetime.now(UTC)
    log.append([view(now) for _ in range(60)] + [view(now, user_id=None) for _ in range(bad)])
    result = materialize(defs, instance, STREAM, today())
    found = {
        one.check_name: one for one in result.get_asset_check_evaluations() if one.asset_key.path == ["dead_letters"]
    }
    assert {name for name, one in found.items() if not one.passed} == failing
    assert f"| missing_actor | interactions | {bad} |" in found["dead_letters_by_reason"].metadata["by reason"].value


def check_now(defs, instance):
    """Run the job that checks; returns the newest result of each check, by key."""
    assert defs.resolve_job_def("check_streams").execute_in_process(instance=instance).success
    keys = [
        key
        for key in defs.resolve_asset_graph().asset_check_keys
        if key.asset_key.path[0] in STREAM and key.name not in DAILY
    ]
    return keys, instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)


def started_consumer(defs, instance):
    """A run of the drain as it stands in Dagster's storage while it goes on."""
    run = instance.create_run_for_job(defs.resolve_job_def("drain_event_log"), status=dg.DagsterRunStatus.STARTED)
    return run.run_id


def test_checks_of_streams_are_reported_of_the_run_that_stored_last(defs, instance, settings, log, lake):
    assert [node.name for node in defs.resolve_job_def("drain_event_log").graph.nodes] == ["event_stream"]
    log.append([view(datetime.now(UTC))])
    run_id = materialize(defs, instance, STREAM, today()).run_id
    lake.table("interactions").delete("item_id = 'i'")
    keys, found = check_now(defs, instance)
    assert set(found) == set(keys)
    assert {record.run_id for record in found.values()} == {run_id}
    assert {key.name for key, record in found.items() if not record.evaluation.passed} >= {"ledger_balances", "volume"}
    for name in STREAM:
        instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=today()))
    keys, found = check_now(defs, instance)
    assert set(found) == set(keys)
    assert {record.run_id for record in found.values()} == {""}
    running = [started_consumer(defs, instance) for _ in range(2)]
    _, found = check_now(defs, instance)
    assert {record.run_id for record in found.values()} == {running[0]}


def test_a_check_that_cannot_be_run_does_not_keep_the_others_from_it(defs, instance, settings, log, lake, monkeypatch):
    log.append([view(datetime.now(UTC))])
    list(consume(log, lake, settings, Until()))
    (file,) = (settings.data_dir / "lake").rglob("interactions/data/**/*.parquet")
    file.unlink()
    result = defs.resolve_job_def("check_streams").execute_in_process(instance=instance, raise_on_error=False)
    assert str(file) in result.get_step_failure_events()[0].step_failure_data.user_failure_data.description
    key = dg.AssetCheckKey(dg.AssetKey("dead_letters"), "ledger_balances")
    assert instance.event_log_storage.get_latest_asset_check_execution_by_key([key])


@pytest.mark.parametrize(
    ("age", "stored", "begins"), [(100, True, 0), (310, True, 1), (310, False, 0), (3500, False, 0), (3700, False, 1)]
)
def test_checks_run_for_each_consumer_and_every_hour_otherwise(
    defs, instance, settings, log, lake, monkeypatch, age, stored, begins
):
    assert tick(defs, "stream_checks_sensor", instance, settings, log, lake).skip_message
    log.append([view(datetime.now(UTC))])
    materialize(defs, instance, STREAM, today())
    first = tick(defs, "stream_checks_sensor", instance, settings, log, lake)
    assert len(first.run_requests) == 1
    check_now(defs, instance)
    if stored:
        log.append([view(datetime.now(UTC))])
        materialize(defs, instance, STREAM, today())
    now = time.time()
    monkeypatch.setattr(check_defs.time, "time", lambda: now + age)
    again = tick(defs, "stream_checks_sensor", instance, settings, log, lake, cursor=first.cursor)
    assert len(again.run_requests) == begins


def test_a_run_beside_a_live_consumer_waits_for_it_and_fails_clearly(defs, instance, settings, log, lake):
    log.append([view(datetime.now(UTC))])
    with hold_lease(settings, 0):
        result = materialize(defs, instance, ["interactions"], today(), wait_seconds=0.3)
    assert not result.success
    assert "Another process is ingesting" in str(result.get_step_failure_events())


def test_the_sensor_starts_a_consumer_when_events_wait(defs, instance, settings, log, lake):
    assert tick(defs, "event_log_sensor", instance, settings, log, lake).run_requests == []
    log.append([view(datetime.now(UTC))])
    (request,) = tick(defs, "event_log_sensor", instance, settings, log, lake).run_requests
    assert request.partition_key == today()
    assert request.run_config["ops"]["event_stream"]["config"]["budget_seconds"] == settings.drain_seconds


def test_the_sensor_says_that_an_idle_stream_is_up_to_date_now_and_then(defs, instance, settings, log, lake):
    # Feature views of events have nothing to compute either.
    found = load_contracts().items()
    views = {name for name, one in found if one.kind is Kind.FEATURE_VIEW and one.view and stream_of(one.view)}
    first = tick(defs, "event_log_sensor", instance, settings, log, lake)
    reported = {event.asset_key.to_user_string() for event in first.asset_events}
    assert reported == {*STREAM, *views, "event_log"}
    second = tick(defs, "event_log_sensor", instance, settings, log, lake, cursor=first.cursor)
    assert second.asset_events == []


def instance_partitions(defs, instance) -> set[str]:
    """The partitions that these definitions have and the instance knows as materialized."""
    key = dg.AssetKey("interactions")
    partitions = defs.resolve_asset_graph().get(key).partitions_def
    return {day for day in instance.get_materialized_partitions(key) if partitions.has_partition_key(day)}


def test_days_stored_without_dagster_are_reported_to_it_once(defs, instance, settings, log, lake):
    days = [datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(5)]
    log.append([view(day) for day in days])
    list(consume(log, lake, settings, Until()))
    first = tick(defs, "lake_partitions_sensor", instance, settings, log, lake)
    for event in first.asset_events:
        instance.report_runless_asset_event(event)
    assert {event.partition for event in first.asset_events} == {day.date().isoformat() for day in days}
    again = tick(defs, "lake_partitions_sensor", instance, settings, log, lake, cursor=first.cursor)
    assert again.asset_events == []
    from recsys_data.definitions import defs as reloaded

    # Their partitions were not among those of the definitions that reported them, and are among the next.
    assert not instance_partitions(defs, instance)
    assert instance_partitions(reloaded(), instance) == {day.date().isoformat() for day in days}
