"""The names that users, cursors, freshness and alerts hang on: a change of one is a deliberate edit of `names.json`."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg

from recsys_data.contracts import load_contracts
from recsys_data.definitions import defs as code_location

defs = code_location()
NAMES = Path(__file__).with_name("names.json")


def names() -> dict[str, list[str]]:
    graph = defs.resolve_asset_graph()
    repository = defs.get_repository_def()
    found = {
        "assets": [key.to_user_string() for key in graph.get_all_asset_keys()],
        "checks": [key.to_user_string() for key in graph.asset_check_keys],
        "groups": {graph.get(key).group_name for key in graph.get_all_asset_keys()},
        "jobs": [job.name for job in repository.get_all_jobs()],
        "ops": {node.name for job in repository.get_all_jobs() for node in job.nodes},
        "resources": [*repository.get_top_level_resources()],
        "schedules": [schedule.name for schedule in repository.schedule_defs],
        "sensors": [sensor.name for sensor in repository.sensor_defs],
    }
    return {kind: sorted(one) for kind, one in found.items()}


def test_names_are_those_that_are_written_down() -> None:
    assert names() == json.loads(NAMES.read_text("utf-8"))


def assets() -> list[str]:
    return [name for name, contract in load_contracts().items() if contract.is_asset]


def test_every_contract_is_an_asset() -> None:
    # Tiles belong to their feature view.
    assert {*assets()} <= {*names()["assets"]}


def test_every_table_has_an_owner_a_kind_and_a_description() -> None:
    graph = defs.resolve_asset_graph()
    for name in assets():
        node = graph.get(dg.AssetKey(name))
        assert node.owners and node.kinds and node.description


MOST_MODULES = 150
HEAVY = ["numpy", "pandas", "pyarrow", "pyiceberg"]
LOADED = f"""
import sys, dagster
before = {{*sys.modules}}
from recsys_data.definitions import defs
defs().get_repository_def().load_all_definitions()
after = {{*sys.modules}} - before
assert not after & {{*{HEAVY}}}, sorted(after & {{*{HEAVY}}})
print(len([name for name in after if not name.startswith(("dagster", "recsys_data"))]))
"""


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    # Each run, and each reload in the UI, begins with it. DuckDB is there, because contracts are checked by it.
    command = [sys.executable, "-W", "ignore", "-c", LOADED]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout) < MOST_MODULES
