"""Snapshots and their history, killed at each step: in the end they are what landed, day by day."""

from datetime import date

from benchmarks.faults.cases.landing import NAME, Prices, compare, land, rows_of
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

DAYS = 6
# Of the items of a day these are left in one that is to be put on hold: far fewer than the contract allows to be lost.
FEW = range(8, 12)


def kill_snapshot(harness: Harness, injections: int) -> Result:
    """Land day after day, kill each `snapshot take` at a step, take again, and compare in the end."""
    result = Result("snapshot and history killed at a step")
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = harness.state()
        prices: Prices = {}
        for day in harness.rng.sample(range(1, DAYS + 1), DAYS):
            prices[day] = land(state, day, harness.rng)
            for _ in range(3):
                places = places or harness.rng.sample(PLACES["snapshot"], len(PLACES["snapshot"]))
                fault = Fault(places.pop(), harness.rng.randint(1, 2))
                child = state.command("snapshot", "take", NAME, prepare=lambda fault=fault: Steps("snapshot", fault))
                child.wait()
                result.injections += child.killed
                result.require(child.killed or not child.code, f"{fault}: {child.text()[-3000:]}")
        again = state.command("snapshot", "take", NAME)
        again.wait(PATIENCE_SECONDS)
        result.recoveries.append(again.seconds)
        result.require(again.code == 0, f"no recovery: {again.text()[-3000:]}")
        compare(state, prices, result)
        result.sent += rows_of(prices)
        if not result.failed:
            state.remove()
    return result


def kill_held(harness: Harness, injections: int) -> Result:
    """Every second day lost most items: kill what puts it on hold, and what accepts it, at each step."""
    result = Result("snapshot put on hold and accepted, killed at a step")
    while result.injections < injections and not result.problems:
        state = harness.state()
        prices: Prices = {}
        for day in range(1, DAYS + 1):
            prices[day] = land(state, day, harness.rng, FEW if day % 2 == 0 else None)
            if day % 2 == 0:
                _hold_back(state, harness, result)
                _accept(state, harness, result, day)
            else:
                result.require(_take(state).wait() == 0, f"day {day} was not taken")
            if result.problems:
                return result
        compare(state, prices, result)
        result.sent += rows_of(prices)
        if not result.failed:
            state.remove()
    return result


def _take(state: State) -> Child:
    return state.command("snapshot", "take", NAME)


def _hold_back(state: State, harness: Harness, result: Result) -> None:
    """Take a snapshot that is to be put on hold until it is, killed twice."""
    for place in harness.rng.sample(PLACES["hold"], 2):
        fault = Fault(place, harness.rng.randint(1, 2))
        child = state.command("snapshot", "take", NAME, prepare=lambda fault=fault: Steps("hold", fault))
        child.wait()
        result.injections += child.killed
        explained(child, result, place)
    again = _take(state)
    result.require(again.wait() == 1 and "are on hold" in again.text(), f"it is not on hold: {again.text()}")


def _accept(state: State, harness: Harness, result: Result, day: int) -> None:
    """Accept what is on hold until it is published, killed twice."""
    arguments = ("snapshot", "accept", NAME, date(2026, 1, day).isoformat())
    for place in harness.rng.sample(PLACES["accept"], 2):
        fault = Fault(place, harness.rng.randint(1, 2))
        child = state.command(*arguments, prepare=lambda fault=fault: Steps("accept", fault))
        child.wait()
        result.injections += child.killed
        explained(child, result, place)
    again = state.command(*arguments)
    again.wait(PATIENCE_SECONDS)
    result.recoveries.append(again.seconds)
    # Killed after it was published, nothing is on hold any more; taking brings the history up to date.
    done = again.code == 0 or "is not on hold; on hold: nothing" in again.text()
    result.require(done, f"no recovery: {again.text()[-3000:]}")
    result.require(_take(state).wait() == 0, "it was put on hold again though it was accepted")
