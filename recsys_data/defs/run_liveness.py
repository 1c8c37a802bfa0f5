"""Which Dagster runs are alive: each holds a lock file while it works, and its process ends the lock however it ends.

Data flow: `run_executor` -> `$DIR/ingest/runs/RUN_ID` locked -> removed at the end of the run, or left unlocked by a
crash -> `LivenessRunLauncher.check_run_worker_health` -> Dagster's run monitoring ends the run.
Dagster's default launcher does not see that the process of a run is gone if its code server went with it, nor that of a
run that the command line started.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg

from recsys_data.defs.dagster_private import CheckRunHealthResult, WorkerStatus
from recsys_data.leases import file_lock
from recsys_data.logs import bound, configure
from recsys_data.settings import Settings

# A look at a mark locks it for a moment, perhaps the one in which the run wants it.
WAIT_SECONDS = 1.0


class LivenessRunLauncher(dg.DefaultRunLauncher):
    """Starts runs as Dagster does by default, and reports runs whose process is gone as failed."""

    _suspects: frozenset[str] = frozenset()

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """A run without a mark has not begun, or has ended; one that is found dead twice is dead.

        Dagster's code server, if it is there, reports the end of its own child processes in between.
        """
        dead = is_dead(Settings.from_env(), run.run_id)
        suspected, self._suspects = run.run_id in self._suspects, self._suspects - {run.run_id}
        if dead and suspected:
            return CheckRunHealthResult(WorkerStatus.FAILED, "Its process is gone. What it committed stays.")
        if dead:
            self._suspects |= {run.run_id}
        return CheckRunHealthResult(WorkerStatus.RUNNING)


class RunExecutor(dg.Executor):
    """Runs the steps of a run in its process, with a mark of life and the run's id in every line that is logged."""

    def __init__(self, steps: dg.Executor) -> None:
        self._steps = steps

    @property
    def retries(self):
        return self._steps.retries

    def execute(self, plan_context, execution_plan):
        settings = Settings.from_env()
        configure(settings, "recsys_data")
        with marked(settings, plan_context.run_id), bound(run_id=plan_context.run_id):
            yield from self._steps.execute(plan_context, execution_plan)


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema.as_field())
def run_executor(context: dg.InitExecutorContext) -> RunExecutor:
    """Runs all steps in the process of the run: to start one costs more than most steps do."""
    steps = dg.in_process_executor.executor_creation_fn
    assert steps is not None
    return RunExecutor(steps(context))


@contextlib.contextmanager
def marked(settings: Settings, run_id: str) -> Iterator[None]:
    """Mark a run as alive. Of several processes of one run the first holds the mark."""
    path = settings.runs_dir / run_id
    with file_lock(path, WAIT_SECONDS) as locked:
        try:
            yield
        finally:
            if locked:
                path.unlink(missing_ok=True)


def is_dead(settings: Settings, run_id: str) -> bool:
    """Whether a run ended without removing its mark."""
    path = settings.runs_dir / run_id
    if not path.exists():
        return False
    with file_lock(path, 0) as free:
        return free


def remove_old_marks(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Remove the marks of dead runs that Dagster has ended, or does not know."""
    for path in settings.runs_dir.iterdir() if settings.runs_dir.is_dir() else []:
        run = instance.get_run_by_id(path.name)
        if (run is None or run.is_finished) and is_dead(settings, path.name):
            path.unlink(missing_ok=True)
