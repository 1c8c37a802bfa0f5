"""Damage within files of the lake and its caches: a command names the file, doctor does, or it does no harm."""

from pathlib import Path

from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import Harness, Result, explained, recover, verify
from benchmarks.faults.harness.state import State

FLIPPED = 16
KINDS = ("data", "manifest", "manifest list", "metadata")
EVERYTHING = "SELECT count(*) AS n, bit_xor(hash(i)) AS h FROM interactions i"


def damaged_lake(harness: Harness, injections: int) -> Result:
    """Flip bits of a file that is in use, look at it, consume, and put it back."""
    result = Result("bits flipped in a file of the lake")
    state = harness.state()
    while result.injections < injections and not result.problems:
        state.send(60, again=10)
        recover(state, result, "nothing")
        sound = state.query(EVERYTHING)
        kind = KINDS[result.injections % len(KINDS)]
        path = harness.rng.choice(_in_use(state, kind))
        whole = path.read_bytes()
        path.write_bytes(_flipped(whole, harness.rng.randrange(4, len(whole) - FLIPPED)))
        _look(state, kind, path, sound, result)
        state.send(20)
        consumer = state.ingest()
        consumer.wait()
        explained(consumer, result, f"damage of {path}")
        named = consumer.code == 0 or path.name in consumer.text()
        result.require(named, f"{kind}: a consumer ended without naming {path}: {consumer.text()[-2000:]}")
        path.write_bytes(whole)
        result.injections += 1
        recover(state, result, f"damage of {path}")
        verify(state, result, f"damage of {path}")
    harness.close(state, result)
    return result


def _look(state: State, kind: str, path: Path, sound: list, result: Result) -> None:
    """Either everything reads as before, or a query or doctor names the file."""
    query = state.command("sql", EVERYTHING, "--format", "json")
    query.wait()
    explained(query, result, f"damage of {path}")
    doctor = state.command("doctor", "--json")
    doctor.wait()
    named = [child for child in (query, doctor) if child.code and path.name in child.text()]
    result.require(not query.code or named, f"{kind}: neither a query nor doctor names {path}: {query.text()[-2000:]}")
    if not query.code and not named:
        same = state.query(EVERYTHING) == sound
        result.require(same, f"{kind}: {path} is damaged, reads otherwise, and doctor says nothing: {doctor.text()}")


def damaged_cache(harness: Harness, injections: int) -> Result:
    """Flip bits of a file of ids that were seen: it is reported, built again, and nothing is stored twice."""
    result = Result("bits flipped in the cache of ids")
    state = harness.state()
    while result.injections < injections and not result.problems:
        state.send(100)
        recover(state, result, "nothing")
        path = harness.rng.choice(list((state.dir / "ingest" / "seen").glob("*.npy")))
        whole = path.read_bytes()
        path.write_bytes(_flipped(whole, harness.rng.randrange(0, len(whole) - FLIPPED)))
        state.send(20, again=200)
        child: Child = state.ingest()
        child.wait()
        result.recoveries.append(child.seconds)
        result.injections += 1
        reported = child.code == 0 and f"{path.name} is damaged" in child.text()
        result.require(reported, f"it ended with {child.code} and did not name {path}: {child.text()[-2000:]}")
        verify(state, result, f"damage of {path}")
    harness.close(state, result)
    return result


def _flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes(255 - byte for byte in whole[at : at + FLIPPED]) + whole[at + FLIPPED :]


def _in_use(state: State, kind: str) -> list[Path]:
    """Files of `interactions` that its current snapshot needs."""
    found = state.folder / "in-use"
    child = state.child(lambda: found.write_text("\n".join(_files(kind))))
    child.wait()
    return [Path(line) for line in found.read_text().split("\n")]


def _files(kind: str) -> list[str]:
    from recsys_data.contracts import load_contracts
    from recsys_data.durable import local_path
    from recsys_data.settings import Settings
    from recsys_data.storage.tables import open_lake

    table = open_lake(Settings.from_env(), load_contracts()).table("interactions")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    locations = {
        "metadata": lambda: [table.metadata_location],
        "manifest list": lambda: [snapshot.manifest_list],
        "manifest": lambda: [manifest.manifest_path for manifest in snapshot.manifests(table.io)],
        "data": lambda: [task.file.file_path for task in table.scan().plan_files()],
    }
    return [str(local_path(location)) for location in locations[kind]()]
