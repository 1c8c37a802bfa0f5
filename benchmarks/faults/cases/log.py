"""Cases of the event log: it cannot be written, read or found for a while, and some of it is damaged."""

import errno
import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.cases.collector import free_port, start
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained, recover, verify
from benchmarks.faults.harness.state import State

WRITING = ("pwrite", "fdatasync")
NUMBERS = {
    "pwrite": (errno.ENOSPC, errno.EIO, errno.EROFS),
    "fdatasync": (errno.EIO,),
    "pread": (errno.EIO, errno.EACCES),
}
# What a power failure may leave of a block that was not written.
ZEROS = 700


def failing(flag: Path, names: tuple[str, ...]) -> Callable[[], None]:
    """Make system calls of this process fail while the file `flag` is there, which says which and how."""

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any) -> Any:
            reported = flag.read_text().split() if flag.exists() else ()
            if reported and reported[0] == name:
                raise OSError(int(reported[1]), os.strerror(int(reported[1])))
            return call(*arguments)

        return maybe

    def prepare() -> None:
        for name in names:
            setattr(os, name, wrapped(name, getattr(os, name)))

    return prepare


def log_cannot_be_written(harness: Harness, injections: int) -> Result:
    """Writes or syncs of a collector that serves fail for a while: 503 until they do not, and no restart."""
    result = Result("log cannot be written: 503")
    state = harness.state(SEGMENT_BYTES="100000")
    state.tight = False
    flag, port = state.folder / "flag", free_port()
    collector = start(state, port, None, Result(""), failing(flag, WRITING))
    while result.injections < injections and not result.problems:
        name = harness.rng.choice(WRITING)
        flag.write_text(f"{name} {harness.rng.choice(NUMBERS[name])}")
        refused = state.make(10)
        answers = {_post(port, state, refused) for _ in range(harness.rng.randint(1, 5))}
        result.require(answers == {503}, f"{flag.read_text()}: the collector answered {answers}")
        flag.unlink()
        result.injections += 1
        begun = time.monotonic()
        good = _post(port, state, [*refused, *state.make(10)])
        result.recoveries.append(time.monotonic() - begun)
        result.require(good == 200, f"it did not recover by itself: {good}")
        state.acknowledged.update(state.sent)
        if harness.rng.random() < 0.1:
            recover(state, Result(""), "refusals")
            verify(state, result, "refusals")
    collector.kill()
    collector.wait()
    explained(collector, result, "a log that cannot be written")
    harness.close(state, result)
    return result


def _post(port: int, state: State, names: list[str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", "/v1/events", b"\n".join(state.sent[name] for name in names))
        return connection.getresponse().status
    finally:
        connection.close()


def log_cannot_be_read(harness: Harness, injections: int) -> Result:
    """A consumer meets a log that it may not read, or that is not mounted: it says so, and the next one goes on."""
    result = Result("log cannot be read, or is not there")
    state = harness.state()
    state.send(60)
    recover(state, result, "nothing")
    flag, log, aside = state.folder / "flag", state.dir / "log", state.folder / "aside"
    while result.injections < injections and not result.problems:
        state.send(60, again=10)
        if harness.rng.random() < 0.5:
            flag.write_text(f"pread {harness.rng.choice(NUMBERS['pread'])}")
            child = state.ingest(prepare=failing(flag, ("pread",)))
            child.wait()
            flag.unlink()
        else:
            # As when the disk of the log is not mounted: an empty folder in its place.
            log.rename(aside)
            log.mkdir()
            child = state.ingest()
            child.wait()
            for partition in log.iterdir():
                partition.rmdir()
            log.rmdir()
            aside.rename(log)
        result.injections += 1
        _reported(child, result)
        recover(state, result, "a log that could not be read")
        verify(state, result, "a log that could not be read")
    harness.close(state, result)
    return result


def _reported(child: Child, result: Result) -> None:
    explained(child, result, "a log that cannot be read")
    clear = child.code == 1 and "event log" in child.text()
    result.require(clear, f"the consumer ended with {child.code}: {child.text()[-2000:]}")


def zeros_in_log(harness: Harness, injections: int) -> Result:
    """A block of zeros among lines that wait: what it hit becomes dead letters, and nothing else is lost."""
    result = Result("block of zeros in the log")
    while result.injections < injections and not result.problems:
        state = harness.state(SEGMENT_BYTES="1000000")
        state.send(60)
        recover(state, result, "nothing")
        held = _sizes(state)
        for _ in range(4):
            state.send(60)
        grown = [
            path for path in (state.dir / "log").rglob("*.ndjson") if path.stat().st_size > held.get(path, 0) + 5000
        ]
        hit = _erase(state, harness.rng.choice(grown), held, harness)
        result.injections += 1
        recover(state, result, "a block of zeros")
        dead = state.query("SELECT count(*) AS n FROM dead_letters WHERE reason = 'malformed_json'")[0]["n"]
        result.require(dead >= 1, f"{len(hit)} lines were damaged, and no dead letter tells of it")
        state.acknowledged -= hit
        harness.close(state, result)
    return result


def _sizes(state: State) -> dict[Path, int]:
    return {path: path.stat().st_size for path in (state.dir / "log").rglob("*.ndjson")}


def _erase(state: State, path: Path, held: dict[Path, int], harness: Harness) -> set[str]:
    """Overwrite a block of lines that wait with zeros; the events of the lines that it hit."""
    whole = bytearray(path.read_bytes())
    at = harness.rng.randrange(held.get(path, 0), len(whole) - ZEROS - 1)
    begin = whole.rfind(b"\n", 0, at) + 1
    # With the newline before its end, the line after it is of the same piece.
    end = whole.find(b"\n", at + ZEROS) + 1
    lines = bytes(whole[begin:end]).splitlines()
    whole[at : at + ZEROS] = bytes(ZEROS)
    path.write_bytes(whole)
    names = {line: name for name, line in state.sent.items()}
    return {names[line] for line in lines if line in names}
