"""The simulation repeats itself, and misses each protection that is switched off."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_data_tests.simulation.machine import KILL, POWER, STOP, Fault
from recsys_data_tests.simulation.schedule import Schedule, draw, run, shrink
from recsys_data_tests.simulation.writing import kinds, schedule

ROOT = Path(__file__).parents[2]
SABOTAGED = {
    "deduplication": [schedule("append", "consume", "redeliver")],
    "compare-and-set": [
        schedule("append", ("consume", Fault(STOP, at, "mkdir")), "consume", "resume") for at in (5, 8)
    ],
    "fsync": [schedule("append", ("append", Fault(POWER, 1)), seed=seed) for seed in range(6)],
}


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.simulation", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_a_seed_is_one_run(base: Path) -> None:
    first, second = (run(draw(1), base) for _ in range(2))
    assert first.trace == second.trace
    assert first.operations == second.operations
    assert first.findings == second.findings == []
    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    "protection",
    [pytest.param(name, marks=[] if name == "deduplication" else pytest.mark.simulation) for name in SABOTAGED],
)
def test_a_protection_that_is_switched_off_is_missed(base: Path, protection: str) -> None:
    schedules = SABOTAGED[protection]
    found = set[str]()
    for one in schedules:
        assert run(one, base).findings == []
        found |= kinds(run(one, base, protection))
    # A protection that is switched off doubles or loses something; that a consumer ends in an error is not enough.
    assert found & ({"doubled"} if protection == "deduplication" else {"doubled", "lost", "stuck"})


@pytest.mark.simulation
def test_a_schedule_is_made_as_small_as_what_it_shows_allows(base: Path) -> None:
    long = schedule("append", "maintain", "consume", "save_index", "redeliver", ("consume", Fault(KILL, 5)), "consume")

    def fails(one: Schedule) -> bool:
        return "doubled" in kinds(run(one, base, "deduplication"))

    small = shrink(long, fails)
    assert fails(small)
    assert [step.kind for step in small.steps] == ["append", "redeliver"]
    assert all(step.fault is None for step in small.steps)


@pytest.mark.simulation
@pytest.mark.parametrize("kind", [POWER, KILL])
def test_a_fault_after_each_commit_is_met_and_withstood(base: Path, kind: str) -> None:
    crashed = [("consume", Fault(kind, at, "after commit")) for at in range(1, 5)]
    result = run(schedule("append", *crashed, "append"), base)
    assert result.findings == [], result.trace
    assert result.faults == {kind: 4}


@pytest.mark.simulation
def test_nothing_is_found_in_many_seeds() -> None:
    done = command("--seeds", "300")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.simulation
def test_the_command_prints_the_smallest_schedule_and_ends_with_1() -> None:
    done = command("--first", "0", "--seeds", "4", "--sabotage", "deduplication")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--sabotage deduplication" in done.stdout
    assert "The smallest schedule" in done.stdout
    assert "=> doubled" in done.stdout
