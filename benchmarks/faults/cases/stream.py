"""Cases of the stream: consumers and appends that are killed at each step or at any moment, and consumers that meet."""

import json
import shutil
import signal
import time

from benchmarks.faults.harness.result import Harness, Result, explained, recover, verify
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

# Injections that one platform takes before it is thrown away.
LIFE = 25
BEFORE_COMMIT = (
    "before stream_writer.build",
    "before stream_writer.write_days",
    "before stream_writer.commit",
    "before commit.swap",
)
LOCKS = ("drain.lock", "drain.next.lock")


def passings(state: State, group: str) -> dict[str, int]:
    """How often a consumer, or an append, without a fault passes each place."""
    report = state.folder / "passed.json"

    def prepare() -> None:
        Steps(group).save_at_exit(report)

    state.send(120, prepare=prepare if group == "log" else None)
    if group != "log":
        state.ingest(prepare=prepare).wait()
    return json.loads(report.read_text())


def kill_consumer(harness: Harness, injections: int) -> Result:
    """Kill the consumer at each step in turn; at times the next one too, and at times the cache of ids is gone."""
    return _kill_at_steps(Result("consumer killed at a step"), harness, injections, {})


def kill_consumer_and_change(harness: Harness, injections: int) -> Result:
    """The same, while the limit of a line changes between two consumers: an event with context is too large, or not."""
    return _kill_at_steps(
        Result("consumer killed at a step, rules changed before the next"),
        harness,
        injections,
        {"MAX_EVENT_BYTES": "160"},
    )


def _kill_at_steps(result: Result, harness: Harness, injections: int, changing: dict[str, str]) -> Result:
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = harness.state()
        counts = passings(state, "consumer")
        for turn in range(LIFE):
            if not places:
                places = harness.rng.sample(PLACES["consumer"], len(PLACES["consumer"]))
            place = places.pop()
            # Of an event that is delivered twice, one line may be accepted and the other rejected, if rules change.
            state.send(40, again=0 if changing else 15)
            child = state.ingest(Fault(place, harness.rng.randint(1, max(1, counts.get(place, 1) // 2))))
            child.wait()
            for name, value in changing.items():
                if state.settings.pop(name, None) is None:
                    state.settings[name] = value
            result.injections += child.killed
            result.require(child.killed or not child.code, f"{place}: {child.text()[-3000:]}")
            if harness.rng.random() < 0.1:
                shutil.rmtree(state.dir / "ingest")
            if harness.rng.random() < 0.4:
                continue  # The next one is killed as well.
            recover(state, result, place)
            if turn % 3 == 0:
                verify(state, result, place)
            if result.problems or result.injections >= injections:
                break
        harness.close(state, result)
    return result


def kill_first_consumer(harness: Harness, injections: int) -> Result:
    """Kill the very first consumer, which creates catalog and tables, at any moment."""
    result = Result("first consumer killed while tables are made")
    while result.injections < injections and not result.problems:
        state = harness.state()
        state.send(20)
        child = state.ingest()
        time.sleep(harness.rng.uniform(0.02, 0.6))
        child.kill()
        child.wait()
        result.injections += child.killed
        harness.close(state, result)
    return result


def kill_append(harness: Harness, injections: int) -> Result:
    """Kill what appends to the log at each step, also within a line, and send what was not acknowledged again."""
    result = Result("append killed at a step, torn tails")
    while result.injections < injections and not result.problems:
        state = harness.state()
        # What is tried here is the log; a consumer of all that was sent again would take hundreds of small commits.
        state.tight = False
        counts = passings(state, "log")
        for _ in range(min(20 * LIFE, injections)):
            place = harness.rng.choice(PLACES["log"])
            most = 3 if place == "within pwrite" else max(1, counts.get(place, 1) // 3)
            child = state.send(20, fault=Fault(place, harness.rng.randint(1, most)))
            result.injections += child.killed
            result.require(child.killed or not child.code, f"{place}: {child.text()[-3000:]}")
            if harness.rng.random() < 0.03:
                recover(state, result, place)
                verify(state, result, place)
            if result.problems or result.injections >= injections:
                break
        harness.close(state, result)
    return result


def two_consumers(harness: Harness, injections: int) -> Result:
    """Two consumers at once, as if on two machines: their lock file is removed. One may be killed."""
    result = Result("two consumers at once")
    state = harness.state()
    while result.injections < injections and not result.problems:
        for _ in range(3):
            state.send(60, again=20)
        first = state.ingest()
        time.sleep(harness.rng.uniform(0.1, 0.5))
        unlock(state)
        second = state.ingest()
        met = first.poll() is None
        if harness.rng.random() < 0.3:
            time.sleep(harness.rng.uniform(0.2, 0.6))
            first.kill()
        for child in (first, second):
            child.wait()
            explained(child, result, "two consumers")
            # Who came before the other had its lock was turned away, and has consumed nothing.
            met = met and "Another process is ingesting" not in child.text()
            result.require(child.code in (0, 1, -signal.SIGKILL), f"exit code {child.code}: {child.text()}")
        result.injections += met
        recover(state, result, "two consumers")
        verify(state, result, "two consumers")
    harness.close(state, result)
    return result


def unlock(state: State) -> None:
    """Take the consumer's lock file away: who comes next locks another one."""
    for name in LOCKS:
        (state.dir / "ingest" / name).unlink(missing_ok=True)


def zombie(harness: Harness, injections: int) -> Result:
    """Stop a consumer before it commits, let another commit the same lines, and let the first go on."""
    result = Result("zombie consumer continues after a takeover")
    state = harness.state(LOG_RETENTION_HOURS="1")
    passings(state, "consumer")
    while result.injections < injections and not result.problems:
        state.send(60, again=15)
        place = harness.rng.choice(BEFORE_COMMIT)
        first = state.ingest(Fault(place, harness.rng.randint(1, 4), signal.SIGSTOP))
        if not first.stopped():
            first.wait()
            continue
        unlock(state)
        state.send(20)
        recover(state, result, "a consumer that hangs")
        first.signal(signal.SIGCONT)
        first.wait()
        result.injections += 1
        moved = first.code == 1 and "Another process has moved" in first.text()
        result.require(moved, f"stopped {place}, it ended with {first.code}: {first.text()[-2000:]}")
        verify(state, result, place)
    harness.close(state, result)
    return result


def redelivery(harness: Harness, injections: int) -> Result:
    """Deliver the same events again, in other batches, to other partitions, and with the cache of ids gone."""
    result = Result("events delivered again later")
    state = harness.state()
    state.send(200)
    while result.injections < injections and not result.problems:
        state.send(20, again=100)
        if harness.rng.random() < 0.5:
            shutil.rmtree(state.dir / "ingest", ignore_errors=True)
        result.injections += 1
        recover(state, result, "a redelivery")
        verify(state, result, "a redelivery")
    harness.close(state, result)
    return result


def random_kill(harness: Harness, injections: int) -> Result:
    """Kill consumers at any moment from outside, several in a row."""
    result = Result("consumer killed at any moment")
    while result.injections < injections and not result.problems:
        state = harness.state()
        for _ in range(LIFE):
            for _ in range(4):
                state.send(40, again=20)
                child = state.ingest()
                time.sleep(harness.rng.uniform(0.1, 0.9))
                child.kill()
                child.wait()
                result.injections += child.killed
            recover(state, result, "kills at any moment")
            verify(state, result, "kills at any moment")
            if result.problems or result.injections >= injections:
                break
        harness.close(state, result)
    return result
