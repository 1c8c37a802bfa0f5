"""Cases of what lies below: a catalog that is locked or read-only, a full disk, a file that is gone, syncs."""

import resource
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import Harness, Result, explained, recover, verify
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.syncs import Syncs


def locked_catalog(harness: Harness, injections: int) -> Result:
    """Another program holds a write transaction on the catalog for a while: the consumer waits and goes on."""
    result = Result("catalog locked for seconds")
    state = harness.state()
    recover(state, result, "nothing")
    while result.injections < injections and not result.problems:
        state.send(60, again=10)
        holder = state.child(lambda: _hold(state, harness.rng.uniform(1, 3)))
        time.sleep(0.3)
        result.injections += holder.poll() is None
        recover(state, result, "a locked catalog")
        holder.wait()
        verify(state, result, "a locked catalog")
    harness.close(state, result)
    return result


def readonly_catalog(harness: Harness, injections: int) -> Result:
    """The catalog cannot be written: the consumer says so and ends, and once it can be, the next one goes on."""
    result = Result("catalog read-only")
    state = harness.state()
    recover(state, result, "nothing")
    while result.injections < injections and not result.problems:
        state.send(60, again=10)
        child = state.ingest(prepare=_make_readonly)
        child.wait()
        result.injections += 1
        explained(child, result, "a read-only catalog")
        result.require(child.code == 1, f"it ended with {child.code}, though nothing can be written: {child.text()}")
        recover(state, result, "a read-only catalog")
        verify(state, result, "a read-only catalog")
    harness.close(state, result)
    return result


def full_disk(harness: Harness, injections: int) -> Result:
    """No file can grow beyond some size: appends and consumers fail with words, and nothing is lost."""
    result = Result("disk full (no file may grow)")
    while result.injections < injections and not result.problems:
        state = harness.state()
        state.send(60)
        recover(state, result, "nothing")
        for _ in range(10):
            append = state.send(60, again=10, prepare=_limited(harness.rng.choice((3_000, 5_000, 11_000))))
            may_be_tried_again(append, result)
            consumer = state.ingest(prepare=_limited(harness.rng.choice((3_000, 8_000, 20_000, 60_000))))
            consumer.wait()
            result.injections += (append.code != 0) + (consumer.code != 0)
            explained(consumer, result, "a full disk")
            if harness.rng.random() < 0.5:
                recover(state, result, "a full disk")
                verify(state, result, "a full disk")
            if result.problems or result.injections >= injections:
                break
        harness.close(state, result)
    return result


def may_be_tried_again(append: Child, result: Result) -> None:
    """An append that failed says that it may be tried again."""
    if append.code:
        result.require(append.text().startswith("Transient"), f"an append failed otherwise:\n{append.text()[-3000:]}")


def removed_file(harness: Harness, injections: int) -> Result:
    """A data file is gone: reading says which, with a failure; put back, everything is as before."""
    result = Result("data file removed")
    state = harness.state()
    state.send(100)
    recover(state, result, "nothing")
    while result.injections < injections and not result.problems:
        path = harness.rng.choice(sorted((state.dir / "lake").rglob("interactions/data/**/*.parquet")))
        aside = state.folder / "aside"
        path.rename(aside)
        child = state.command("sql", "SELECT max(item_id), max(event_id) FROM interactions")
        child.wait()
        result.injections += 1
        result.require(child.code, "a query of a table with a missing file succeeded")
        result.require(path.name in child.text(), f"the error does not name {path.name}: {child.text()[-2000:]}")
        explained(child, result, "a removed file")
        aside.rename(path)
        verify(state, result, "a removed file")
    harness.close(state, result)
    return result


def unsynced(harness: Harness, injections: int) -> Result:
    """No fault, but a witness: every acknowledged append and every commit comes after the syncs that it needs."""
    result = Result("syncs before acknowledgements and commits (checked)")
    state = harness.state()
    report = state.folder / "syncs"

    def watch() -> None:
        Syncs(state.dir / "lake", report)

    state.send(60, prepare=watch)
    state.ingest(prepare=watch).wait()
    for _ in range(3):
        state.send(60, again=10, prepare=watch)
        state.ingest(prepare=watch).wait()
    lines = report.read_text().splitlines()
    for what in ("append", "commit"):
        result.injections += lines.count(what)
        result.require(lines.count(what) > 10, f"the witness saw {lines.count(what)} of {what}")
        unsafe = [line for line in lines if line.startswith(f"{what} before")]
        result.require(not unsafe, f"{len(unsafe)} were not synced, such as {unsafe[:2]}")
    harness.close(state, result)
    return result


def _hold(state: State, seconds: float) -> None:
    with sqlite3.connect(state.dir / "lake" / "catalog.db", isolation_level=None) as catalog:
        catalog.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        catalog.execute("ROLLBACK")


def _make_readonly() -> None:
    connect = sqlite3.dbapi2.connect

    def readonly(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made = connect(*args, **kwargs)
        made.execute("PRAGMA query_only = 1")
        return made

    sqlite3.connect = sqlite3.dbapi2.connect = readonly  # type: ignore[assignment]


def _limited(most: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    return limit
