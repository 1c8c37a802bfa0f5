"""Feature views in Dagster: one YAML file is an asset, with its sources, columns and runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from recsys_data import connect
from recsys_data.cli import cli
from recsys_data.definitions import defs
from recsys_data_tests.support.contract_files import write
from recsys_data_tests.support.feature_views import CLICKS

DAY = "2026-01-10"
CLICK = dg.AssetKey("item_clicks")


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """Definitions of a deployment to which one view was added as a file, with three events in its lake."""
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_FIRST_DAY", "2026-01-01")
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(write(tmp_path / "contracts", CLICKS)))
    events = [
        {"event_id": f"e{n}", "type": "click", "user_id": f"u{n}", "item_id": "a", "event_ts": f"{DAY}T10:0{n}:00Z"}
        for n in range(3)
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    for command in (["load", "events", str(tmp_path / "events.jsonl")], ["ingest", "--until-empty"]):
        assert CliRunner().invoke(cli, command).exit_code == 0
    yield defs()


def test_a_view_that_is_one_file_is_an_asset_a_command_and_a_join(location, tmp_path):
    node = location.resolve_asset_graph().get(CLICK)
    assert node.parent_keys == {dg.AssetKey("interactions")}
    assert node.freshness_policy is not None and node.automation_condition is not None
    lineage = node.metadata["dagster/column_lineage"].deps_by_column
    assert [dep.column_name for dep in lineage["spent"]] == ["type", "value"]
    with dg.instance_for_test() as instance:
        job = location.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=instance, asset_selection=[CLICK], partition_key=DAY)
        (event,) = done.get_asset_materialization_events()
        metadata = event.materialization.metadata
        assert metadata["dagster/partition_row_count"].value == 1
        assert metadata["mean events_7d"].value == 3.0
        assert "| clicks_1h |" in metadata[f"features on {DAY}"].value
    listed = CliRunner().invoke(cli, ["features", "list"]).output
    assert "item_clicks" in listed
    joined = connect().features(
        connect().sql(f"SELECT 'a' AS item_id, TIMESTAMPTZ '{DAY} 10:02:00+00' AS timestamp"),
        ["item_clicks"],
        known="event_time",
    )
    assert joined.select("item_clicks__clicks_1h, item_clicks__known").fetchall() == [(2, True)]


def test_a_view_whose_extra_is_missing_says_so_and_neither_starts_nor_is_stale(monkeypatch):
    monkeypatch.setattr("recsys_data.features.embeddings.find_spec", lambda name: None)
    node = defs().resolve_asset_graph().get(dg.AssetKey("item_text"))
    assert node.automation_condition is None and node.freshness_policy is None
    assert "Install recsys-data[embeddings]" in (node.description or "")
    monkeypatch.setattr("recsys_data.features.embeddings.find_spec", lambda name: name)
    node = defs().resolve_asset_graph().get(dg.AssetKey("item_text"))
    assert node.automation_condition is not None and node.freshness_policy is not None


def test_a_run_computes_the_days_that_late_events_touched_too(location, tmp_path):
    job = location.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        job.execute_in_process(instance=instance, asset_selection=[CLICK], partition_key=DAY)
        late = {
            "event_id": "late",
            "type": "click",
            "user_id": "u9",
            "item_id": "a",
            "event_ts": "2026-01-08T10:00:00Z",
        }
        (tmp_path / "late.jsonl").write_text(json.dumps(late) + "\n")
        for command in (["load", "events", str(tmp_path / "late.jsonl")], ["ingest", "--until-empty"]):
            assert CliRunner().invoke(cli, command).exit_code == 0
        job.execute_in_process(instance=instance, asset_selection=[CLICK], partition_key=DAY)
        assert instance.get_materialized_partitions(CLICK) == {DAY, "2026-01-08"}


def test_the_check_of_leakage_runs_daily_and_passes_for_a_sound_view(location):
    job = location.resolve_implicit_global_asset_job_def()
    check = dg.AssetCheckKey(CLICK, "no_leakage")
    assert location.resolve_asset_graph().get(check).automation_condition is not None
    with dg.instance_for_test() as instance:
        job.execute_in_process(instance=instance, asset_selection=[CLICK], partition_key=DAY)
        checks = dg.define_asset_job("leakage", dg.AssetSelection.checks(check))
        with_job = dg.Definitions.merge(location, dg.Definitions(jobs=[checks]))
        done = with_job.resolve_job_def("leakage").execute_in_process(instance=instance)
        assert [one.passed for one in done.get_asset_check_evaluations()] == [True]
