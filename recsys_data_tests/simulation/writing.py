"""Schedules written by hand, for tests."""

from typing import Any

from recsys_data_tests.simulation.machine import Fault
from recsys_data_tests.simulation.schedule import Result, Schedule
from recsys_data_tests.simulation.world import Deployment, Step


def schedule(*steps: str | tuple[str, Fault], seed: int = 1, **deployment: Any) -> Schedule:
    """A schedule of these steps, some with a fault; `seed` decides what they leave open."""
    made = [(step, None) if isinstance(step, str) else step for step in steps]
    named = [Step(kind, f"{seed}.{number}", fault) for number, (kind, fault) in enumerate(made)]
    return Schedule(str(seed), Deployment(**deployment), tuple(named))


def kinds(result: Result) -> set[str]:
    """What kinds of findings a run showed."""
    return {finding.kind for finding in result.findings}
