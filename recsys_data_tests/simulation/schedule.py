"""Schedules: drawn from a seed, run in a new world, and made smaller while they still show what is wrong."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from recsys_data_tests.simulation import product
from recsys_data_tests.simulation.check import check
from recsys_data_tests.simulation.machine import IO_ERROR, KILL, NO_SPACE, POWER, STOP, Fault
from recsys_data_tests.simulation.product import Sizes
from recsys_data_tests.simulation.steps import HANDLERS
from recsys_data_tests.simulation.variants import VARIANTS
from recsys_data_tests.simulation.world import Deployment, Finding, Step, World, create

WEIGHTS = {
    "append": 10,
    "redeliver": 3,
    "consume": 9,
    "replay": 3,
    "discard": 0.7,
    "edit_query_rule": 2,
    "edit_page_rule": 1.5,
    "edit_datasets": 1,
    "edit_limit": 1.5,
    "snapshot": 1.2,
    "history": 0.6,
    "retire": 0.7,
    "maintain": 1.2,
    "back_up": 1,
    "restore": 0.7,
    "restore_lake": 0.7,
    "save_index": 0.7,
    "swap_index": 0.7,
    "remove_segment": 0.25,
    "jump": 1,
    "resume": 1.2,
}
# Steps that are done by people or by other programs, which do not fail with the machine.
ABOVE = {"edit_query_rule", "edit_page_rule", "edit_datasets", "edit_limit", "save_index", "swap_index"}
ABOVE |= {"restore_lake", "remove_segment", "jump", "resume"}
STOPPABLE = {"consume", "replay"}
EDITS = ("edit_query_rule", "edit_page_rule", "edit_limit", "edit_datasets")
AFTER = {
    "append": ("consume",),
    "append!": ("redeliver", "consume"),
    "consume!": (*EDITS, "consume", "resume"),
    **dict.fromkeys(EDITS, ("consume", "replay")),
    "replay": ("consume",),
    "replay!": ("consume", "replay"),
    "discard": ("redeliver", "consume"),
    "back_up": ("append", "consume"),
    "restore": ("append", "swap_index"),
    "save_index": ("append", "restore"),
    "swap_index": ("redeliver", "consume"),
    "snapshot": ("history",),
}
FOLLOWS = 0.6
PLACES = ("after commit", "fsync", "fdatasync", "pwrite", "replace", "unlink", "mkdir")
FAULTY = 0.45


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a world begins, and what happens then."""

    seed: str
    deployment: Deployment
    steps: tuple[Step, ...]


@dataclass
class Result:
    """What running a schedule showed.

    Attributes:
        trace: a line for each step, with what became of it.
        faults: those that happened, by kind.
        operations: how often each was passed.
    """

    schedule: Schedule
    findings: list[Finding]
    trace: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    deployment = Deployment(
        partitions=rng.choice((3, 4)),
        retention_hours=rng.choice((0, 168, 168)),
        segment_bytes=rng.choice((1200, 2500, 10000)),
        empty=rng.random() < 0.1,
        variant=rng.choice(VARIANTS),
        sizes=Sizes(
            rng.choice((400, 1500, 10000)), rng.choice((6, 12, 1000)), rng.choice((1, 12, 1000)), rng.choice((3, 50))
        ),
    )
    steps: list[Step] = []
    for number in range(rng.randrange(8, 20)):
        kind = _kind(rng, steps[-1] if steps else Step("", ""))
        fault = _fault(rng, kind) if rng.random() < FAULTY and kind not in ABOVE else None
        steps.append(Step(kind, f"{seed}.{number}", fault))
    return Schedule(str(seed), deployment, tuple(steps))


def _kind(rng: random.Random, last: Step) -> str:
    """What comes next: often what makes use of the step before, or would be hurt by its fault."""
    after = AFTER.get(f"{last.kind}!" if last.fault else last.kind)
    if after and rng.random() < FOLLOWS:
        return rng.choice(after)
    return rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]


def _fault(rng: random.Random, kind: str) -> Fault:
    kinds = [POWER, POWER, POWER, KILL, KILL, NO_SPACE, IO_ERROR, *([STOP] * 2 if kind in STOPPABLE else [])]
    chosen = rng.choice(kinds)
    if kind == "consume" and chosen not in (NO_SPACE, IO_ERROR) and rng.random() < 0.5:
        # Between the commits of two tables.
        return Fault(chosen, rng.randrange(1, 6), rng.choice(("before commit", "after commit")))
    if kind == "append" and rng.random() < 0.5:
        return Fault(chosen, rng.randrange(1, 10))
    if chosen not in (NO_SPACE, IO_ERROR) and rng.random() < 0.5:
        return Fault(chosen, rng.randrange(1, 10), rng.choice(PLACES))
    return Fault(chosen, math.ceil(math.exp(rng.uniform(0, math.log(200)))))


def run(schedule: Schedule, base: Path, sabotage: str | None = None) -> Result:
    """Run a schedule below `base`, where nothing else may be."""
    with ExitStack() as stack:
        stack.enter_context(product.prepared(schedule.deployment.sizes, sabotage))
        world = create(base, schedule.deployment, schedule.seed, HANDLERS, stack)
        try:
            for step in schedule.steps:
                world.run(step)
            failure = world.finish(random.Random(schedule.seed))
            findings = check(world, failure)
        finally:
            world.stop_everything()
        return Result(schedule, findings, world.trace, world.faults, world.machine.counts)


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], attempts: int = 200) -> Schedule:
    """A smaller schedule for which `fails` is still true: steps are left out, then faults."""
    steps = list(schedule.steps)

    def still(shorter: Sequence[Step]) -> bool:
        nonlocal attempts
        attempts -= 1
        return attempts >= 0 and fails(Schedule(schedule.seed, schedule.deployment, tuple(shorter)))

    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + size :]
            if still(shorter):
                steps = shorter
            else:
                at += size
        size //= 2
    for at, step in enumerate(steps):
        calm = [*steps[:at], Step(step.kind, step.seed), *steps[at + 1 :]]
        if step.fault and still(calm):
            steps = calm
    return Schedule(schedule.seed, schedule.deployment, tuple(steps))


__all__ = ["Result", "Schedule", "World", "draw", "run", "shrink"]
