"""Runs whose process is gone are ended; runs that live, and those that ended by themselves, are left alone."""

import logging
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from recsys_data.defs.run_liveness import LivenessRunLauncher, is_dead, marked, remove_old_marks, run_executor
from recsys_data.settings import Settings

LAUNCHER = {"module": LivenessRunLauncher.__module__, "class": LivenessRunLauncher.__name__}
# A job that runs what stands for BODY, and its settings.
JOB = """
import os, signal, sys
import dagster as dg
from recsys_data.defs.run_liveness import is_dead, run_executor
from recsys_data.settings import Settings

@dg.op
def step(context) -> None:
    BODY

@dg.job(executor_def=run_executor)
def steps() -> None:
    step()

if __name__ == "__main__":
    with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
        dg.execute_job(dg.reconstructable(steps), instance)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "state"))
    return Settings.from_env()


def run_in_a_process(folder: Path, body: str) -> int:
    """Run the job in a process of its own, with its Dagster storage in the folder `dagster`; returns the exit code."""
    (folder / "dagster").mkdir()
    script = folder / "steps.py"
    script.write_text(JOB.replace("BODY", body))
    command = [sys.executable, "-W", "ignore", str(script), str(folder / "dagster")]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_a_run_that_was_killed_is_ended_at_the_second_look(settings: Settings, tmp_path: Path) -> None:
    assert run_in_a_process(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") == -9
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster"), overrides={"run_launcher": LAUNCHER}) as instance:
        states = []
        for _ in range(2):
            (record,) = instance.get_run_records()
            states.append(record.dagster_run.status)
            monitor_started_run(instance, None, record, logging.getLogger())  # type: ignore[arg-type]
        (run,) = instance.get_runs()
        assert states == [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTED]
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert is_dead(settings, run.run_id)
        remove_old_marks(settings, instance)
        assert [*settings.runs_dir.iterdir()] == []


def test_a_run_is_marked_while_it_works_and_not_afterwards(settings: Settings, tmp_path: Path) -> None:
    body = """settings = Settings.from_env()
    assert len([*settings.runs_dir.iterdir()]) == 1 and not is_dead(settings, context.run_id)"""
    assert run_in_a_process(tmp_path, body) == 0
    assert [*settings.runs_dir.iterdir()] == []


def test_every_run_of_the_code_location_is_marked() -> None:
    from recsys_data.definitions import defs

    jobs = defs().get_repository_def().get_all_jobs()
    assert {job.executor_def for job in jobs} == {run_executor}


def test_a_living_run_is_healthy_and_an_unknown_mark_is_removed(settings: Settings) -> None:
    with dg.DagsterInstance.ephemeral() as instance, marked(settings, "alive"):
        (settings.runs_dir / "nobody").touch()
        remove_old_marks(settings, instance)
        assert [path.name for path in settings.runs_dir.iterdir()] == ["alive"]
        assert not is_dead(settings, "alive")
