"""Cases of memory: it runs out at a step, it is limited, or the kernel ends who takes most of it."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.cases.landing import NAME, Prices, compare, land, rows_of
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import Harness, Result, recover, verify
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

MIB = 1024 * 1024
PAGE = resource.getpagesize()
# A consumer, or a snapshot, of a few rows takes about this much more than the process that it is forked from.
ROOM_MIB = (0.5, 60.0)
# Arrow's CSV reader waits for ever for a thread or buffer that it did not get. What Dagster does to a run beyond its
# age limit is then done sooner: it is ended, and the next one takes over.
AGE_LIMIT_SECONDS = 20.0


def out_of_memory(harness: Harness, injections: int) -> Result:
    """A consumer whose memory runs out, in three ways; in the end an ordinary one stores everything."""
    result = Result("consumer out of memory")
    state = harness.state()
    ways = (_at_a_step, _limited, _killed)
    hung = 0
    while result.injections < injections and not result.problems:
        state.send(60, again=15)
        way = harness.rng.choice(ways)
        child = way(state, harness, "consumer", ("ingest", "--until-empty"))
        result.injections += child.code != 0
        hung += _ended(child, way is _limited, result)
        if harness.rng.random() < 0.3:
            recover(state, result, "a lack of memory")
            verify(state, result, "a lack of memory")
    harness.close(state, result)
    _tell(result, hung)
    return result


def snapshot_out_of_memory(harness: Harness, injections: int) -> Result:
    """The same of what takes snapshots."""
    result = Result("snapshot out of memory")
    hung = 0
    while result.injections < injections and not result.problems:
        state = harness.state()
        prices: Prices = {}
        for day in (1, 2, 3):
            prices[day] = land(state, day, harness.rng)
            for way in (_at_a_step, _limited, _killed):
                child = way(state, harness, "snapshot", ("snapshot", "take", NAME))
                result.injections += child.code != 0
                hung += _ended(child, way is _limited, result)
        again = state.command("snapshot", "take", NAME)
        result.require(again.wait() == 0, f"no recovery: {again.text()[-3000:]}")
        result.recoveries.append(again.seconds)
        compare(state, prices, result)
        result.sent += rows_of(prices)
        if not result.failed:
            state.remove()
    _tell(result, hung)
    return result


def _ended(child: Child, limited: bool, result: Result) -> bool:
    """Whether it had to be ended for its age, which is an error unless a library lacked memory (`limited`)."""
    result.require(limited or not child.hung, f"it neither ended nor worked: {child.text()[-3000:]}")
    return child.hung


def _tell(result: Result, hung: int) -> None:
    if hung:
        result.fault += f" ({hung} hung in a library, and were ended for their age)"


def _at_a_step(state: State, harness: Harness, group: str, arguments: tuple[str, ...]) -> Child:
    fault = Fault(harness.rng.choice(PLACES[group]), harness.rng.randint(1, 2), error=MemoryError)
    child = state.command(*arguments, prepare=lambda: Steps(group, fault))
    child.wait()
    return child


def _limited(state: State, harness: Harness, group: str, arguments: tuple[str, ...]) -> Child:
    """Allocations fail once the process has taken so much more address space than when it began."""
    child = state.command(*arguments, prepare=_limit(harness.rng.uniform(*ROOM_MIB)))
    child.wait(AGE_LIMIT_SECONDS)
    return child


def _limit(room: float) -> Callable[[], None]:
    def limit() -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (taken + int(room * MIB), resource.RLIM_INFINITY))

    return limit


def _killed(state: State, harness: Harness, group: str, arguments: tuple[str, ...]) -> Child:
    """Killed once it holds so much more memory than when it began, as the kernel does to the largest."""
    room = harness.rng.uniform(*ROOM_MIB) * MIB
    child = state.command(*arguments)
    first = _resident(child)
    while child.poll() is None:
        if _resident(child) - first > room:
            child.kill()
        time.sleep(0.001)
    return child


def _resident(child: Child) -> int:
    try:
        return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
