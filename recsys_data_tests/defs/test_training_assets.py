"""Training sets and models in Dagster: one YAML file is an asset of the set, and one of each model."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import time_machine
from click.testing import CliRunner

from recsys_data.cli import cli
from recsys_data.definitions import defs
from recsys_data.errors import ContractError
from recsys_data_tests.support.contract_files import write

SET, POPULAR, RANDOM = dg.AssetKey("mine"), dg.AssetKey(["mine", "popular"]), dg.AssetKey(["mine", "chance"])
START = datetime(2026, 1, 10, tzinfo=UTC)
MINE = {
    "name": "mine",
    "description": "Clicks by visitor.",
    "rows": "outcomes",
    "known": "event_time",
    "labels": [{"type": "click"}],
    "maturity": "0s",
    "context": ["device_type"],
    "features": ["item_engagement"],
    "split": {"by": "time", "validation": 0.0, "test": 0.3},
    "models": {"popular": {}, "chance": {"kind": "random", "seed": 3}},
}


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a training set to the folder of contracts of a deployment; returns its file."""
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RECSYS_DATA_FIRST_DAY", "2026-01-01")
    folder = write(tmp_path / "contracts") / "training_sets"
    folder.mkdir()
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(folder.parent))

    def declare(**changes: Any) -> Path:
        (folder / "mine.yaml").write_text(json.dumps(MINE | changes), "utf-8")
        return folder / "mine.yaml"

    return declare


@pytest.fixture
def location(declare: Callable[..., Path], tmp_path: Path) -> Iterator[dg.Definitions]:
    """Definitions of a deployment with a set of its own, and events in its lake."""
    declare()
    lines = []
    for n in range(200):
        event = {"event_id": f"e{n}", "type": "click", "event_ts": (START + timedelta(minutes=n)).isoformat()}
        lines.append(json.dumps(event | {"user_id": f"u{n % 13}", "item_id": f"i{n * n % 31}"}) + "\n")
    (tmp_path / "events.jsonl").write_text("".join(lines))
    for command in (["load", "events", str(tmp_path / "events.jsonl")], ["ingest", "--until-empty"]):
        assert CliRunner().invoke(cli, command).exit_code == 0
    yield defs()


def run(location: dg.Definitions, instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.ExecuteInProcessResult:
    job = location.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)


def metadata_of(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert done.success
    (event,) = done.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_a_set_and_its_models_are_assets_after_their_sources(declare: Callable[..., Path]) -> None:
    declare()
    graph = defs().resolve_asset_graph()
    node = graph.get(SET)
    assert node.parent_keys == {dg.AssetKey(name) for name in ("interactions", "contexts", "item_engagement")}
    assert (node.group_name, node.kinds) == ("training", {"parquet"})
    assert "Clicks by visitor." in (node.description or "") and "mine.yaml" in (node.description or "")
    for key in (POPULAR, RANDOM):
        assert graph.get(key).parent_keys == {SET}
        assert graph.get(dg.AssetCheckKey(key, "beats_champion")).description


def test_a_set_and_its_models_are_made_with_what_there_is_to_know(location: dg.Definitions, tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        found = metadata_of(run(location, instance, SET))
        rows = {split: found[f"rows {split}.parquet"] for split in ("train", "test")}
        assert found["dagster/row_count"] == sum(rows.values()) == 200
        assert (found["version"], found["new"]) == (1, True)
        assert found["dagster/uri"] == (tmp_path / "data" / "training" / "sets" / "mine" / "1").as_uri()
        assert {"label", "device_type", "item_engagement__known"} <= {
            column.name for column in found["dagster/column_schema"].columns
        }
        assert "| rows | 200 |" in found["steps"] and f"| train | {rows['train']} |" in found["steps"]
        assert "| train.parquet |" in found["files"]
        assert found["rows compared without their future"] > 0
        assert metadata_of(run(location, instance, SET))["new"] is False

        done = run(location, instance, POPULAR)
        found = metadata_of(done)
        assert (found["version"], found["training set"], found["kind"]) == (1, "mine 1", "popular")
        assert found["nDCG@10"] > 0 and found["CatalogCoverage@10"] > 0
        assert "| popular |" in found["metrics"] and "| random |" in found["metrics"]
        assert "| visitor known |" in found["by segment"]
        assert found["plot"].startswith("![metrics](data:image/png;base64,iVBOR")
        assert (tmp_path / "data" / "training" / "models" / found["artefact"]).is_dir()
        (check,) = done.get_asset_check_evaluations()
        assert check.passed and check.metadata["alias"].value == "champion"

        done = run(location, instance, RANDOM)
        found = metadata_of(done)
        assert (found["version"], found["kind"], found["parameters"]["seed"]) == (2, "random", 3)
        assert "| champion 1 |" in found["metrics"]
        (check,) = done.get_asset_check_evaluations()
        assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN
        assert check.metadata["alias"].value == "challenger"
        least = check.metadata["from"].value
        assert isinstance(least, int | float) and least <= 0


def test_what_cannot_be_built_or_trained_fails_with_words(declare: Callable[..., Path]) -> None:
    declare()
    with dg.instance_for_test() as instance:
        for key in (SET, POPULAR):
            done = run(defs(), instance, key)
            (failure,) = [event for event in done.all_events if event.is_step_failure]
            error = failure.step_failure_data.error
            assert error and "There are no interactions to build a training set from" in error.message
            assert failure.step_failure_data.user_failure_data is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "pages"}, r"Invalid enum value 'pages'"),
        ({"features": ["item_sales"]}, "features: 'item_sales' is not a feature view; choose from .*item_engagement"),
        ({"context": ["mood"]}, "context: mood is not a column of contexts"),
        ({"bots": "visits > 3"}, "bots: 'visits > 3' cannot be used"),
        ({"models": {"itemknn": {}}}, "models: 'itemknn' is not a model for rows of outcomes; choose from popular"),
        ({"name": "interactions"}, "name: interactions is the name of a dataset"),
    ],
)
def test_an_unsound_set_fails_when_definitions_load(declare: Callable[..., Path], changes: Any, message: str) -> None:
    path = declare(**changes)
    with pytest.raises(Exception, match="Error while building definitions") as raised:
        defs()
    # Dagster shows the whole chain of causes.
    error: BaseException | None = raised.value
    while error and not isinstance(error, ContractError):
        error = error.__cause__
    assert re.match(f"{re.escape(str(path))}: .*{message}", str(error))


def test_a_set_of_the_package_without_its_sources_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys_data.contracts import load_contracts
    from recsys_data.training.sets.declared import usable_sets

    contracts = load_contracts()
    assert {"impressions", "next_items"} <= usable_sets(contracts).keys()
    del contracts["user_item"]
    assert "impressions" not in usable_sets(contracts)


class Ticks:
    """What the conditions of the location request, tick by tick."""

    def __init__(self, location: dg.Definitions, instance: dg.DagsterInstance, clock: time_machine.Traveller) -> None:
        self.location, self.instance, self.clock = location, instance, clock
        self.cursor = None

    def stored(self, key: dg.AssetKey, partition: str | None = None) -> None:
        self.clock.shift(1)
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def requested(self, after: timedelta = timedelta(seconds=30)) -> set[dg.AssetKey]:
        self.clock.shift(after)
        selection = dg.AssetSelection.assets(SET, POPULAR, RANDOM)
        result = dg.evaluate_automation_conditions(
            self.location, self.instance, asset_selection=selection, cursor=self.cursor
        )
        self.cursor = result.cursor
        return {key for key in (SET, POPULAR, RANDOM) if result.get_num_requested(key)}


@pytest.mark.parametrize("source", ["interactions", "contexts", "item_engagement"])
def test_a_set_is_built_daily_after_its_sources_and_a_model_after_its_set(
    declare: Callable[..., Path], source: str
) -> None:
    declare()
    day = timedelta(days=1)
    with time_machine.travel(START + timedelta(hours=12), tick=False) as clock, dg.instance_for_test() as instance:
        ticks = Ticks(defs(), instance, clock)
        ticks.requested()
        ticks.stored(dg.AssetKey(source), "2026-01-08")
        # At four in the morning, not after each micro-batch.
        assert ticks.requested() == set()
        assert ticks.requested(day) == {SET}
        assert ticks.requested(day) == set()
        ticks.stored(SET)
        assert ticks.requested() == {POPULAR, RANDOM}
        ticks.stored(POPULAR)
        assert [ticks.requested(), ticks.requested(day)] == [set(), set()]


HEAVY = ["numpy", "pandas", "pyarrow", "pyiceberg", "scipy", "matplotlib", "lightgbm", "implicit", "sklearn"]
LOADED = f"""
import sys
from recsys_data.definitions import defs
from recsys_data.errors import ContractError
graph = defs().resolve_asset_graph()
import dagster
assert graph.has(dagster.AssetKey(["mine", "popular"]))
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_loading_sets_and_models_imports_nothing_that_computes(declare: Callable[..., Path]) -> None:
    declare()
    command = [sys.executable, "-W", "ignore", "-c", LOADED]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "[]"
