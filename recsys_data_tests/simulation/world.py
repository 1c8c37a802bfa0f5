"""A simulated deployment: one machine, the state folder on its disk, the processes that run, and the truth outside.

Data flow: `World.run(step)` for each step of a schedule -> `World.finish`, a quiet consumer that takes what is left.
What is wrong in the end is reported by `check.py`.
"""

import gc
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from recsys_data.contracts import Contract
from recsys_data.errors import RecsysDataError
from recsys_data_tests.simulation import product
from recsys_data_tests.simulation.machine import KILL, POWER, Crash, Fault, Machine, Process
from recsys_data_tests.simulation.product import EventLog, Lake, Settings, Sizes
from recsys_data_tests.simulation.traffic import Truth
from recsys_data_tests.simulation.variants import Variant, contracts_of

LONGEST, SHORTER = 36 * 1024, 1000


@dataclass(frozen=True, slots=True)
class Deployment:
    """What does not change during a schedule.

    Attributes:
        partitions: of the log, one of them for the collector.
        retention_hours: how long the log keeps what was consumed.
        empty: whether nothing is there in the beginning, not even tables.
        variant: the contracts in the beginning.
    """

    partitions: int = 3
    retention_hours: int = 168
    segment_bytes: int = 2500
    empty: bool = False
    variant: Variant = Variant()
    sizes: Sizes = Sizes()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done or happens; `seed` decides what is left open, whatever steps are left out before it."""

    kind: str
    seed: str
    fault: Fault | None = None

    def __str__(self) -> str:
        if self.fault is None:
            return self.kind
        where = f"operation {self.fault.at}" if not self.fault.operation else f"{self.fault.operation} {self.fault.at}"
        reported = f" ({self.fault.happened})" if self.fault.happened else ", which was not reached"
        return f"{self.kind}: {self.fault.kind} at {where}{reported}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be."""

    kind: str
    detail: str


Handler = Callable[["World", random.Random], None]


@dataclass
class World:
    """What there is."""

    base: Path
    deployment: Deployment
    machine: Machine
    handlers: Mapping[str, Handler]
    truth: Truth = field(default_factory=Truth)
    variant: Variant = Variant()
    max_event_bytes: int = LONGEST
    collector: EventLog | None = None
    stopped: list[Process] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    backup: Truth | None = None
    restoring: bool = False

    def __post_init__(self) -> None:
        self.change(self.deployment.variant)

    @property
    def settings(self) -> Settings:
        return Settings(
            dir=str(self.machine.disk.folder),
            log_partitions=self.deployment.partitions,
            segment_bytes=self.deployment.segment_bytes,
            log_retention_hours=self.deployment.retention_hours,
            max_event_bytes=self.max_event_bytes,
        )

    @property
    def contracts(self) -> Mapping[str, Contract]:
        return contracts_of(self.variant)

    def change(self, variant: Variant) -> None:
        """Edit the contracts; processes that run keep those that they read."""
        self.variant = variant
        self.truth.vouchers_always &= variant.vouchers

    def open(self) -> tuple[EventLog, Lake]:
        """Log and lake, opened by the process that runs; closed when it ends."""
        log = product.open_log(self.settings)
        if self.machine.process:
            self.machine.process.cleanups.append(log.close)
        return log, self.open_lake()

    def open_lake(self) -> Lake:
        lake = product.open_lake(self.settings, self.contracts)
        if self.machine.process:
            self.machine.process.cleanups.append(lambda: product.close_lake(lake))
        return lake

    def collecting(self) -> EventLog:
        """The log as the collector holds it, which stays while consumers come and go."""
        if self.collector is None:
            self.collector = product.open_log(self.settings)
        return self.collector

    def run(self, step: Step) -> None:
        """Take one step, with what comes of its fault."""
        self.machine.advance(30)
        fault = replace(step.fault) if step.fault else None
        product.forget()
        process = Process(step.kind, fault)
        self.machine.run(process, lambda: self._perform(step))
        self._settle(process)
        if fault and fault.happened:
            self.faults[fault.kind] += 1
        outcome = "stopped" if process.stopped else type(process.error).__name__ if process.error else "done"
        self.trace.append(f"{Step(step.kind, step.seed, fault)} -> {process.passed} operations, {outcome}")

    def resume(self, process: Process, dead: bool = False) -> None:
        """A stopped process goes on, or dies."""
        self.stopped.remove(process)
        self.machine.resume(process, dead)
        self._settle(process)

    def stop_everything(self) -> None:
        """Every process dies where it is."""
        for process in list(self.stopped):
            self.resume(process, dead=True)
        self.close_collector()

    def close_collector(self) -> None:
        if self.collector is not None:
            self.collector.close()
            self.collector = None

    def _perform(self, step: Step) -> None:
        if self.restoring and step.kind != "restore":
            self.handlers["restore"](self, random.Random())
        self.handlers[step.kind](self, random.Random(step.seed))

    def _settle(self, process: Process) -> None:
        """What comes of the way in which a process ended."""
        if process.stopped:
            self.stopped.append(process)
            return
        error, fault = process.error, process.fault
        failed = bool(fault and fault.happened)
        if (
            error is not None
            and not isinstance(error, Crash | RecsysDataError)
            and not (failed and isinstance(error, OSError))
        ):
            reported = "".join(traceback.format_exception(error))[-3000:]
            self.findings.append(Finding("traceback", f"{process.name} ended with {type(error).__name__}:\n{reported}"))
        if error is not None:
            _let_go(error)
        for cleanup in process.cleanups:
            cleanup()
        if isinstance(error, Crash) and fault:
            if fault.kind == POWER and self.machine.image:
                self.stop_everything()
                self.machine.start_again()
            elif fault.kind == KILL and process.name in ("append", "redeliver"):
                self.close_collector()

    def finish(self, rng: random.Random) -> RecsysDataError | None:
        """Let everything come to rest; returns why the last consumer failed, if it did."""
        dead = rng.random() < 0.3
        while self.stopped:
            self.resume(self.stopped[0], dead)
        self.close_collector()
        product.forget()
        process = Process("last consumer")
        self.machine.run(process, lambda: self._perform(Step("consume", "")))
        self._settle(process)
        return process.error if isinstance(process.error, RecsysDataError) else None


def _let_go(error: BaseException) -> None:
    """Free what the frames of a dead process hold: DuckDB shares a database that is open with whoever opens it."""
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
        following, one.__context__, one.__cause__ = one.__context__, None, None
        one = following
    gc.collect()


def create(base: Path, deployment: Deployment, seed: str, handlers: Mapping[str, Handler], stack: ExitStack) -> World:
    """A new world below `base`, with tables unless the deployment is to begin without any; on until `stack` ends."""
    state = base / "state"
    for name in ("state", "backup", "saved", "image", "aside"):
        shutil.rmtree(base / name, ignore_errors=True)
    if deployment.empty:
        state.mkdir(parents=True)
    else:
        shutil.copytree(_template(base, deployment), state)
    machine = Machine(state, seed)
    machine.disk.settle()
    stack.enter_context(machine.on())
    return World(base, deployment, machine, handlers)


def _template(base: Path, deployment: Deployment) -> Path:
    """A state folder with empty tables, made where it will be used, for metadata name files by their whole path."""
    template = base / f"template-{int(deployment.variant.vouchers)}"
    if not template.exists():
        state = base / "state"
        state.mkdir(parents=True)
        contracts = contracts_of(Variant(vouchers=deployment.variant.vouchers))
        lake = product.open_lake(Settings(dir=str(state)), contracts)
        product.create_tables(lake)
        product.close_lake(lake)
        state.rename(template)
    return template
