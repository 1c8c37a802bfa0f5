"""What a case of the fault harness found, and what all cases share."""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.state import State

PATIENCE_SECONDS = 60.0


@dataclass
class Result:
    """One row of the table, and what is wrong in words."""

    fault: str
    injections: int = 0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    recoveries: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.doubled or self.problems or not self.injections)

    @property
    def cells(self) -> tuple[str, ...]:
        middle, most = (statistics.median(self.recoveries), max(self.recoveries)) if self.recoveries else (0.0, 0.0)
        recovery = f"{middle:.1f} / {most:.1f}" if self.recoveries else "-"
        return (self.fault, *(f"{n:,}" for n in (self.injections, self.sent, self.lost, self.doubled)), recovery)

    def require(self, holds: object, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(problem)


@dataclass
class Harness:
    """Where the cases work, how often, and with which protection switched off."""

    folder: Path
    rng: random.Random
    protection_off: str | None = None
    _states: int = 0

    def state(self, **settings: str) -> State:
        """A new platform, empty."""
        self._states += 1
        return State(self.folder / str(self._states), self.rng, self.protection_off, **settings)

    def close(self, state: State, result: Result) -> None:
        """Send what was never acknowledged, recover, judge, and throw the platform away; if sound, that is."""
        while state.waiting and not result.problems:
            child = state.send(0)
            result.require(child.code == 0, f"an append without a fault failed:\n{child.text()}")
        recover(state, result, "the end")
        verify(state, result, "the end")
        result.sent += len(state.sent)
        if not result.failed:
            state.remove()


def recover(state: State, result: Result, after: str) -> None:
    """Restart until nothing waits: one ordinary consumer must be enough."""
    child = state.ingest()
    child.wait(PATIENCE_SECONDS)
    result.recoveries.append(child.seconds)
    result.require(child.code == 0, f"no recovery after {after}: exit code {child.code}\n{child.text()[-3000:]}")


def verify(state: State, result: Result, after: str) -> None:
    """Compare what is stored with what was sent."""
    verdict = state.verdict()
    result.lost += verdict.lost
    result.doubled += verdict.doubled
    result.problems += [f"after {after}, in {state.folder}: {problem}" for problem in verdict.problems]
    if verdict.lost or verdict.doubled:
        result.problems.append(f"after {after}, in {state.folder}: lost {verdict.lost}, doubled {verdict.doubled}")


def explained(child: Child, result: Result, after: str) -> None:
    """A command that cannot go on says so, without a traceback."""
    result.require("Traceback" not in child.text(), f"a traceback after {after}:\n{child.text()[-3000:]}")


Case = Callable[[Harness, int], Result]
