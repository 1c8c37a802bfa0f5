"""Runs whose process is gone are ended; runs that live, and those that ended by themselves, are left alone."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from recsys_data.defs.monitoring.instance import dead_runs_sensor, end_dead_runs
from recsys_data.defs.resources import LakeResource
from recsys_data.defs.run_liveness import dead_runs, marked
from recsys_data.settings import Settings

KILLED = """
import os, signal, sys
import dagster as dg
from recsys_data.storage.tables import Lake
from recsys_data.defs.resources import LakeResource

@dg.asset
def killed(lake: dg.ResourceParam[Lake]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    dg.materialize([killed], instance=instance, resources={"lake": LakeResource()})
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "state"))
    return Settings.from_env()


def test_a_run_that_was_killed_is_ended_at_the_second_look(settings: Settings, tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(home)], capture_output=True, text=True)
    assert child.returncode == -9, child.stderr
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        cursor, said = None, []
        for _ in range(3):
            with dg.build_sensor_context(instance, cursor, resources={"settings": settings}) as context:
                said.append(dead_runs_sensor.evaluate_tick(context).skip_message)
                cursor = context.cursor
        assert said == ["Every running run has a process", f"Ended: {run.run_id}", "Every running run has a process"]
        (ended,) = instance.get_runs()
        assert ended.status == dg.DagsterRunStatus.FAILURE
    assert dead_runs(settings) == [] and cursor == "[]"


def test_a_run_is_marked_while_it_works_and_not_afterwards(settings: Settings) -> None:
    seen: list[tuple[int, list[str]]] = []

    @dg.asset(required_resource_keys={"lake"})
    def looks() -> None:
        folder = settings.data_dir / "ingest" / "runs"
        seen.append((len(list(folder.iterdir())), dead_runs(settings)))
        raise ValueError("failed")

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([looks], instance=instance, resources={"lake": LakeResource()}, raise_on_error=False)
    assert seen == [(1, [])]
    assert list((settings.data_dir / "ingest" / "runs").iterdir()) == []


def test_a_living_run_is_no_suspect_and_an_unknown_mark_is_removed(settings: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance, marked(settings, "alive"):
        (settings.data_dir / "ingest" / "runs" / "nobody").touch()
        assert end_dead_runs(instance, settings, {"alive", "nobody"}) == ([], [])
        assert [path.name for path in (settings.data_dir / "ingest" / "runs").iterdir()] == ["alive"]
