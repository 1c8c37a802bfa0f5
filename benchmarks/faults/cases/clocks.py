"""Cases of time: a clock that goes back, and events that are delivered again after days."""

from benchmarks.faults.cases.maintenance import keep_up
from benchmarks.faults.harness.result import Harness, Result, recover, verify

DAY_SECONDS = 86_400.0


def clock_goes_back(harness: Harness, injections: int) -> Result:
    """The clock of a consumer is hours behind that of the consumer before, as after a correction."""
    result = Result("clock jumps back by hours")
    state = harness.state()
    while result.injections < injections and not result.problems:
        state.send(60, again=20)
        state.ahead = -harness.rng.choice((10, 7200, 90_000))
        child = state.ingest()
        child.wait()
        state.ahead = 0.0
        result.injections += 1
        result.require(child.code == 0, f"the consumer ended with {child.code}: {child.text()[-3000:]}")
        state.send(60, again=20)
        recover(state, result, "a clock that went back")
        verify(state, result, "a clock that went back")
    harness.close(state, result)
    return result


def delivered_days_later(harness: Harness, injections: int) -> Result:
    """Days go by, with maintenance each night and a log that is pruned; then events of the past are delivered again."""
    result = Result("events delivered again after days")
    state = harness.state()
    state.send(150)
    recover(state, result, "nothing")
    while result.injections < injections and not result.problems:
        days = harness.rng.randint(1, 12)
        state.ahead += days * DAY_SECONDS
        for _ in range(2):
            kept = state.child(lambda: keep_up(0.0))
            result.require(kept.wait() == 0, f"maintenance failed: {kept.text()[-2000:]}")
        state.send(10, again=120)
        result.injections += 1
        recover(state, result, f"{days} days")
        verify(state, result, f"{days} days")
    harness.close(state, result)
    return result
