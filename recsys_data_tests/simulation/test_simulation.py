"""The simulation repeats itself, finds what it is made for, and finds nothing in what the product promises."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from recsys_data_tests.simulation.machine import KILL, POWER, STOP, Fault
from recsys_data_tests.simulation.product import SABOTAGES
from recsys_data_tests.simulation.schedule import Result, Schedule, draw, run, shrink
from recsys_data_tests.simulation.variants import Variant
from recsys_data_tests.simulation.world import Deployment, Step

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not MEMORY.is_dir(), reason="the disk of the simulation lies in /dev/shm")
Run = Callable[..., Result]


@pytest.fixture
def base() -> Iterator[Path]:
    with TemporaryDirectory(prefix="recsys-simulation-", dir=MEMORY) as folder:
        yield Path(folder)


def schedule(*steps: str | tuple[str, Fault], seed: int = 1, variant: Variant = Variant()) -> Schedule:
    made = [(step, None) if isinstance(step, str) else step for step in steps]
    named = [Step(kind, f"{seed}.{number}", fault) for number, (kind, fault) in enumerate(made)]
    return Schedule(str(seed), Deployment(variant=variant), tuple(named))


def kinds(result: Result) -> set[str]:
    return {finding.kind for finding in result.findings}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_the_first_seeds(base: Path, seed: int) -> None:
    result = run(draw(seed), base)
    assert result.findings == [], result.trace


def test_a_seed_is_one_run(base: Path) -> None:
    first, second = (run(draw(7), base) for _ in range(2))
    assert first.trace == second.trace
    assert first.operations == second.operations
    assert draw(7) == draw(7) != draw(8)


SABOTAGED = {
    "deduplication": [schedule("append", "consume", "redeliver", "consume")],
    "compare-and-set": [
        schedule("append", ("consume", Fault(STOP, at, "mkdir")), "consume", "resume") for at in range(3, 12)
    ],
    "fsync": [schedule("append", ("consume", Fault(POWER, 1)), seed=seed) for seed in range(10)],
}


@pytest.mark.parametrize("protection", SABOTAGES)
def test_a_protection_that_is_switched_off_is_missed(base: Path, protection: str) -> None:
    schedules = SABOTAGED[protection]
    assert not any(run(one, base).findings for one in schedules)
    found = set().union(*(kinds(run(one, base, protection)) for one in schedules))
    assert found & {"doubled", "lost", "stuck", "traceback"}


def test_a_schedule_is_made_as_small_as_what_it_shows_allows(base: Path) -> None:
    long = schedule("append", "maintain", "consume", "save_index", "redeliver", ("consume", Fault(KILL, 5)), "consume")

    def fails(one: Schedule) -> bool:
        return "doubled" in kinds(run(one, base, "deduplication"))

    small = shrink(long, fails)
    assert fails(small)
    assert [step.kind for step in small.steps] == ["append", "redeliver"] or len(small.steps) == 3
    assert all(step.fault is None for step in small.steps)


def test_the_last_consumer_stores_what_every_fault_left(base: Path) -> None:
    for kind in (POWER, KILL):
        crashed = [("consume", Fault(kind, at, "after commit")) for at in range(1, 5)]
        result = run(schedule("append", *crashed, "append"), base)
        assert result.findings == [], result.trace
        assert result.faults == {kind: 4}


@pytest.mark.simulation
def test_nothing_is_found_in_many_seeds() -> None:
    seeds = ["--seeds", "300"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.simulation", *seeds], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_prints_the_smallest_schedule_and_ends_with_1() -> None:
    arguments = ["--first", "0", "--seeds", "4", "--sabotage", "deduplication", "--jobs", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.simulation", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--seed" in done.stdout
