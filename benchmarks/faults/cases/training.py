"""Training sets and models, made while events arrive and killed at each step: each version is whole, and stays."""

import json
import time
from hashlib import file_digest
from pathlib import Path

from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

# One of outcomes, of the package, and one of impressions with features.
OUTCOMES, IMPRESSIONS = "next_items", "shown"
SHOWN = {
    "name": IMPRESSIONS,
    "rows": "impressions",
    "known": "event_time",
    "labels": [{"type": "click"}],
    "window": "1h",
    "maturity": "1h",
    "features": ["item_engagement"],
}
ROUNDS, EVENTS = 5, 40
BUILDS = [*[("training-set", "build", OUTCOMES)] * 2, ("training-set", "build", IMPRESSIONS)]
REBUILD, TRAIN = ("training-set", "rebuild", OUTCOMES), ("train", "popular")
# Shares of processes that are killed at any moment, and that run beside another.
AT_ANY_MOMENT, TWO = 0.2, 0.3
# Folder of a version -> the manifest that it was published with.
Seen = dict[Path, bytes]


def kill_training(harness: Harness, injections: int) -> Result:
    """Kill builds, rebuilds and training while events arrive; then each works again, on versions as they were."""
    result = Result("training sets and models, killed at a step or at any moment")
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = _state(harness)
        seen: Seen = {}
        for _ in range(ROUNDS):
            _happen(state, EVENTS)
            arriving = state.ingest()
            for _ in range(2):
                places = places or harness.rng.sample(PLACES["training"], len(PLACES["training"]))
                beside = state.command(*TRAIN) if state.rng.random() < TWO else None
                child, fault = _killed(state, places)
                if beside:
                    busy = beside.wait() and "Another process is building" in beside.text()
                    result.require(busy or not beside.code, f"beside {fault}: {beside.text()[-3000:]}")
                result.injections += child.killed
                explained(child, result, fault)
                # Before the first build there is nothing to rebuild.
                expected = ("none was built", "Another process is building")
                allowed = child.killed or not child.code or any(one in child.text() for one in expected)
                result.require(allowed, f"{fault}: {child.text()[-3000:]}")
                _check_sets(state, seen, result)
            result.require(arriving.wait() == 0, f"events were not consumed: {arriving.text()[-3000:]}")
            if result.problems or result.injections >= injections:
                break
        _make_again(state, seen, result)
        _check_registry(state, result)
        harness.close(state, result)
    return result


def _state(harness: Harness) -> State:
    state = harness.state()
    folder = state.folder / "contracts" / "training_sets"
    folder.mkdir(parents=True)
    (folder / f"{IMPRESSIONS}.yaml").write_text(json.dumps(SHOWN))
    state.settings["CONTRACTS"] = str(folder.parent)
    _happen(state, 2 * EVENTS)
    state.ingest().wait()
    return state


def _happen(state: State, count: int) -> None:
    """Append impressions and clicks of many visitors, each click a few minutes after an impression of its item."""
    names = []
    for _ in range(count):
        number = len(state.sent)
        name, shown = f"t-{number}-{state.rng.getrandbits(32):08x}", number % 2 == 0
        happened = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_767_225_600 + number * 60))
        event = {
            "event_id": name,
            "type": "impression" if shown else "click",
            "user_id": f"u{state.rng.randrange(40)}" if shown else f"u{number % 7}",
            "item_id": f"i{state.rng.randrange(300)}",
            "event_ts": happened,
            "received_at": "2026-01-31T00:00:00Z",
        }
        state.sent[name] = json.dumps(event, separators=(",", ":")).encode()
        names.append(name)
    state.waiting.append(names)
    state.send(0)


def _killed(state: State, places: list[str]) -> tuple[Child, str]:
    """Run a command, and kill it; returns how."""
    if state.rng.random() < AT_ANY_MOMENT:
        command = _command(state, [*BUILDS, REBUILD, TRAIN])
        child = state.command(*command)
        time.sleep(state.rng.uniform(0.1, 2.5))
        child.kill()
        child.wait()
        return child, f"{' '.join(command)}, killed at any moment"
    place = places.pop()
    owner = place.split()[1].partition(".")[0]
    of_registry = owner in ("train", "registry", "commit", "SqlCatalog")
    commands = [TRAIN] if of_registry else [*BUILDS, REBUILD] if owner == "build" else [*BUILDS, REBUILD, TRAIN]
    command = _command(state, commands)
    # Files are synced, moved or removed several times, other steps are taken once.
    fault = Fault(place, state.rng.randint(1, {"durable": 8, "Path": 3}.get(owner, 1)))
    child = state.command(*command, prepare=lambda: Steps("training", fault))
    child.wait()
    return child, f"{' '.join(command)}, {fault}"


def _command(state: State, commands: list[tuple[str, ...]]) -> tuple[str, ...]:
    """One of the commands; a rebuild is of any version."""
    command = state.rng.choice(commands)
    folders = sorted((state.dir / "training" / "sets" / OUTCOMES).glob("[0-9]*"))
    return (*command, "--version", state.rng.choice(folders).name) if command == REBUILD and folders else command


def _make_again(state: State, seen: Seen, result: Result) -> None:
    """Build, rebuild each version, and train, without a fault; nothing else was done to what the crashes left."""
    commands = [("training-set", "build"), ("train", "popular"), ("train", "random", "--no-promote")]
    for number, command in enumerate(commands):
        again = state.command(*command)
        again.wait(PATIENCE_SECONDS)
        if not number:
            result.recoveries.append(again.seconds)
        result.require(again.code == 0, f"{' '.join(command)}: {again.text()[-3000:]}")
    _check_sets(state, seen, result)
    for folder in list(seen):
        again = state.command("training-set", "rebuild", folder.parent.name, "--version", folder.name)
        again.wait(PATIENCE_SECONDS)
        result.require(again.code == 0, f"rebuild of {folder}: {again.text()[-3000:]}")
        described = json.loads((folder / "manifest.json").read_text())["files"]
        missing = [name for name in described if not (folder / name).is_file()]
        result.require(not missing, f"{folder} has no {missing} after its rebuild")
    _check_sets(state, seen, result)
    left = sorted(one.name for one in (state.dir / "training" / "staging").iterdir())
    result.require(not left, f"left in staging: {left}")


def _check_sets(state: State, seen: Seen, result: Result) -> None:
    """Each version has the manifest that it was published with, and no file that is not the manifest's."""
    for folder in (state.dir / "training" / "sets").glob("*/*"):
        result.require(folder.name.isdecimal(), f"{folder} is not a version")
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            result.problems.append(f"{folder} has no manifest")
            continue
        text = manifest.read_bytes()
        result.require(seen.setdefault(folder, text) == text, f"{manifest} has changed")
        described = json.loads(text)["files"]
        for path in folder.iterdir():
            if path != manifest:
                with path.open("rb") as file:
                    same = file_digest(file, "sha256").hexdigest() == described.get(path.name, {}).get("sha256")
                result.require(same, f"{path} is not what its manifest says")
    gone = [folder for folder in seen if not folder.is_dir()]
    result.lost += len(gone)
    result.require(not gone, f"versions are gone: {gone}")


def _check_registry(state: State, result: Result) -> None:
    """Versions have numbers of their own, files that are what their name says, and aliases that name them."""
    report = state.folder / "registry.json"
    child = state.child(lambda: report.write_text(json.dumps(_registry())))
    if child.wait():
        result.problems.append(f"the registry cannot be read: {child.text()[-3000:]}")
        return
    versions, aliases, wrong = json.loads(report.read_text())
    numbers = [(model, number) for model, number in versions]
    result.doubled += len(numbers) - len({*numbers})
    result.require(len(numbers) == len({*numbers}), f"versions are there twice: {numbers}")
    result.require(numbers, "no model was registered")
    result.require(sorted(numbers) == [(OUTCOMES, 1 + at) for at in range(len(numbers))], f"numbers: {numbers}")
    result.require(not wrong, f"versions without their files: {wrong}")
    result.require("champion" in aliases.get(OUTCOMES, {}), f"there is no champion: {aliases}")
    for model, named in aliases.items():
        unknown = {alias: number for alias, number in named.items() if (model, number) not in numbers}
        result.require(not unknown, f"aliases of {model} name no version: {unknown}")


def _registry() -> tuple[list[tuple[str, int]], dict[str, dict[str, int]], list[str]]:
    """Versions, aliases, and the versions whose files are not what the registry says."""
    from recsys_data.operations.platform import opened
    from recsys_data.training.registry import aliases_of, artefact_digest, artefact_folder, registered

    with opened() as platform:
        versions = registered(platform.lake)
        wrong = [
            f"{one.model} {one.version}"
            for one in versions
            if artefact_digest(artefact_folder(platform.settings, one.artefact)) != one.artefact
        ]
        return [(one.model, one.version) for one in versions], aliases_of(platform.lake), wrong
