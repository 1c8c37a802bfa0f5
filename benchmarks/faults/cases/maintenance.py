"""Cases of maintenance (compaction, expiry, removal of files) that is killed beside a consumer and beside readers."""

import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.faults.harness.readers import read_all_the_time, read_on
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained, recover, verify
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

# The tables that are kept up; of the stream's, those with most files.
KEPT = ("interactions", "contexts")
# Maintenance runs every night; half of that, so that two runs see a file before it is removed.
HOURS = 12.0


def kill_maintenance(harness: Harness, injections: int) -> Result:
    """Kill maintenance at each step, with a consumer beside it, and a reader that planned before and reads after."""
    result = Result("maintenance killed, beside a consumer and a reader")
    places: list[str] = []
    state = harness.state()
    hours = 0.0
    while result.injections < injections and not result.problems:
        state.send(60, again=10)
        recover(state, result, "nothing")
        reader = state.child(read_on)
        result.require(reader.stopped(), f"the reader did not begin: {reader.text()[-2000:]}")
        state.send(60, again=10)
        places = places or harness.rng.sample(PLACES["maintenance"], len(PLACES["maintenance"]))
        fault = Fault(places.pop(), harness.rng.randint(1, 3))
        hours += HOURS
        child = _maintenance(state, hours, fault)
        consumer = state.ingest()
        child.wait()
        consumer.wait()
        result.injections += child.killed
        result.require(child.killed or child.code == 0, f"{fault}: {child.text()[-3000:]}")
        explained(consumer, result, "maintenance beside it")
        reader.signal(signal.SIGCONT)
        result.require(reader.wait() == 0, f"{fault}: a reader that began before: {reader.text()[-2000:]}")
        recover(state, result, fault.place)
        if not result.injections % 3:
            verify(state, result, fault.place)
    _tidy(state, hours, result)
    harness.close(state, result)
    return result


def read_beside(harness: Harness, injections: int) -> Result:
    """Kill consumers and maintenance, while a process reads all the tables all the time."""
    result = Result("consumers and maintenance killed, tables read all the time")
    state = harness.state()
    state.send(60)
    recover(state, result, "nothing")
    report = state.folder / "looks"
    reader = state.child(lambda: read_all_the_time(report))
    hours = 0.0
    while result.injections < injections and not result.problems:
        state.send(80, again=20)
        child = state.ingest()
        time.sleep(harness.rng.uniform(0.05, 0.6))
        child.kill()
        hours += HOURS / 2
        kept = _maintenance(state, hours, Fault(harness.rng.choice(PLACES["maintenance"]), harness.rng.randint(1, 4)))
        child.wait()
        kept.wait()
        result.injections += child.killed + kept.killed
        result.require(kept.killed or kept.code == 0, f"maintenance: {kept.text()[-3000:]}")
        recover(state, result, "kills beside a reader")
        result.require(reader.poll() is None, f"the reader ended: {reader.text()[-3000:]}")
    verify(state, result, "kills beside a reader")
    reader.kill()
    reader.wait()
    looks = report.stat().st_size if report.exists() else 0
    result.require(looks > 2 * result.injections, f"the reader looked {looks} times only")
    result.fault += f" ({looks:,} times)"
    harness.close(state, result)
    return result


def _maintenance(state: State, hours: float, fault: Fault | None):
    return state.child(lambda: keep_up(hours), prepare=lambda: Steps("maintenance", fault))


def keep_up(hours: float) -> None:
    """Upkeep of tables, as of some hours ahead of the clock."""
    from recsys_data.contracts import load_contracts
    from recsys_data.settings import Settings
    from recsys_data.storage.maintenance.compaction import maintain_table
    from recsys_data.storage.tables import open_lake

    lake = open_lake(Settings.from_env(), load_contracts())
    now = datetime.fromtimestamp(time.time(), UTC) + timedelta(hours=hours)
    for name in KEPT:
        maintain_table(lake, name, now)


def _tidy(state: State, hours: float, result: Result) -> None:
    """Upkeep without a fault, until a day has passed: then every file that is there is referred to."""
    for night in range(1, 4):
        child = _maintenance(state, hours + 24 * night, None)
        result.require(child.wait(PATIENCE_SECONDS) == 0, f"no recovery of maintenance: {child.text()[-3000:]}")
        result.recoveries.append(child.seconds)
    left = state.folder / "left"
    child = state.child(lambda: left.write_text("\n".join(unreferenced())))
    found = left.read_text() if child.wait() == 0 else child.text()
    result.require(not found, f"files that nobody removes: {found[-2000:]}")


def unreferenced() -> list[str]:
    """Files of the tables to which nothing refers."""
    from recsys_data.contracts import load_contracts
    from recsys_data.durable import local_path
    from recsys_data.settings import Settings
    from recsys_data.storage.maintenance import orphans
    from recsys_data.storage.tables import open_lake

    lake = open_lake(Settings.from_env(), load_contracts())
    left: list[str] = []
    for name in KEPT:
        table = lake.table(name)
        known = {str(local_path(where)) for where in orphans.references(table)}
        folder = Path(str(local_path(table.location())))
        left += [str(path) for path in folder.rglob("*") if path.is_file() and str(path) not in known]
    return left
