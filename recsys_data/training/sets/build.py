"""Builds training sets, and rebuilds them to the same bytes.

Data flow: declaration, lake -> what the lake holds (`stored`) -> rows (`spine`) -> split -> features joined point in
time -> Parquet files and `manifest.json`, in a folder that appears whole or not at all. Run alone:
`recsys-data training-set build NAME`.
"""

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.contracts import load_contracts
from recsys_data.contracts.features.check import over_histories
from recsys_data.contracts.features.expressions import TIMESTAMP
from recsys_data.contracts.features.sources import dataset_of, sources_of
from recsys_data.days import from_microseconds, to_microseconds
from recsys_data.durable import make_folder, scratch, sync_all, sync_file
from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.features.files import write_joined
from recsys_data.features.lake import check_purpose, join_features, open_features
from recsys_data.features.point_in_time import COMMIT
from recsys_data.features.rows import IDENTITIES
from recsys_data.features.stored import Stored, StoredThen, check_stored, file_digest, stored_now
from recsys_data.leases import file_lock
from recsys_data.settings import Settings
from recsys_data.sql import quote
from recsys_data.storage.tables import Lake
from recsys_data.training.sets.declared import (
    AGENT,
    TrainingSet,
    check_set,
    load_sets,
    named,
    reads_agents,
    weight_columns,
)
from recsys_data.training.sets.files import write_rows
from recsys_data.training.sets.leakage import check_leakage, steady
from recsys_data.training.sets.manifest import (
    MANIFEST,
    Manifest,
    View,
    encode,
    missing_files,
    next_version,
    read_manifest,
    sets_folder,
    versions,
)
from recsys_data.training.sets.spine import EVENT_COLUMNS, PREVIOUS, Spine
from recsys_data.training.sets.split import divide

if TYPE_CHECKING:
    import duckdb

LOCK_SECONDS = 5.0
# Raise it when rows or features of the same inputs come out in another way.
COMPUTATION = 1
# Versions whose files are kept beside their manifests; those of older ones can be rebuilt.
FILES_KEPT = 3

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A version of a training set.

    Attributes:
        manifest: of it.
        folder: of its files.
        new: whether this build made it; False: a build of the same inputs had made it.
    """

    manifest: Manifest
    folder: Path
    new: bool


def declared_set(lake: Lake, settings: Settings, name: str) -> tuple[TrainingSet, Path]:
    """A training set by name, checked against the contracts.

    Raises:
        UserError: there is none of this name.
        ContractError: its declaration makes no sense.
    """
    declared, path = named(name, load_sets(*settings.contract_dirs))
    check_set(path, declared, lake.contracts)
    return declared, path


def build(
    lake: Lake,
    settings: Settings,
    name: str,
    *,
    cutoff: datetime | None = None,
    known: str | None = None,
    on_progress: Progress = lambda step: None,
) -> Built:
    """Build the next version of a training set, unless the newest one was built from the same inputs.

    Args:
        lake: what it is built from.
        settings: say where it is put, and how much memory is used before it spills.
        name: of the training set.
        cutoff: what happened, or became known, from then on is left out; None: nothing is.
        known: in place of what is declared: `commit` or `event_time`.
        on_progress: called with what is done next.

    Raises:
        UserError: there is no such set, its purpose is not permitted for a column, or a feature knows the future.
        Transient: another process builds it, or memory or disk is full.
    """
    declared, _ = declared_set(lake, settings, name)
    if known:
        declared = msgspec.structs.replace(declared, known=known)
    _check_purposes(lake, declared)
    with _mine(settings, name), open_features(settings.history_memory_mb * 1_000_000) as connection:
        on_progress("reading what the lake holds")
        stored = stored_now(lake, connection, _datasets(lake, declared))
        then = StoredThen(lake, declared.known, stored)
        # Of what lies after the newest event nothing is final.
        end = _end(connection, then)
        end = min(end, to_microseconds(cutoff)) if cutoff else end
        known_until = to_microseconds(cutoff) if cutoff and declared.known == COMMIT else None
        views = {one: _view(lake, one) for one in declared.features}
        inputs = _inputs(declared, stored, views, end, known_until)
        if there := _unchanged(settings, name, inputs):
            return there
        with scratch(settings.training_dir / "staging", name) as staging:
            whole = staging / "version"
            whole.mkdir()
            made = _make(connection, lake, declared, then, (end, known_until), whole, on_progress)
            version = next_version(settings, name)
            manifest = Manifest(
                name=name,
                version=version,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                inputs=inputs,
                declaration=_without_models(declared),
                purpose=declared.purpose,
                known=declared.known,
                cutoff=_moment(end),
                known_until=None if known_until is None else _moment(known_until),
                label_version=_digest(
                    [declared.rows, declared.labels, declared.label, declared.window, declared.maturity]
                ),
                sources=stored,
                views=views,
                software=_software(),
                **made,
            )
            folder = sets_folder(settings, name) / str(version)
            _publish(whole, folder, manifest)
        _drop_old_files(settings, name)
        return Built(manifest, folder, True)


def rebuild(
    lake: Lake,
    settings: Settings,
    name: str,
    version: int | None = None,
    *,
    on_progress: Progress = lambda step: None,
) -> Built:
    """Build the files of a version again from its manifest: the same bytes.

    Args:
        lake: what it was built from, with whatever was stored since.
        settings: say where it is.
        name: of the training set.
        version: None: the newest.
        on_progress: called with what is done next.

    Raises:
        UserError: what it was built from is not there any more, or the files come out otherwise: what they would be
            is not put in their place.
        Transient: another process builds the set, or memory or disk is full.
    """
    manifest, folder = read_manifest(settings, name, version)
    declared = manifest.declaration
    with (
        _mine(settings, name),
        open_features(settings.history_memory_mb * 1_000_000) as connection,
        scratch(settings.training_dir / "staging", name) as staging,
    ):
        lake_then = _lake_then(lake, settings, manifest, staging / "contracts")
        on_progress("comparing what the lake holds")
        check_stored(lake_then, connection, manifest.sources)
        then = StoredThen(lake_then, declared.known, manifest.sources)
        ends = (_microseconds(manifest.cutoff), _microseconds(manifest.known_until) if manifest.known_until else None)
        made = _make(connection, lake_then, declared, then, ends, staging, on_progress)
        _check_same(manifest, made)
        # After a crash in between, each file is missing, as it was, or as the manifest says.
        for file in made["files"]:
            (staging / file).replace(folder / file)
        sync_all(folder / file for file in made["files"])
    return Built(manifest, folder, True)


def _make(
    connection: "duckdb.DuckDBPyConnection",
    lake: Lake,
    declared: TrainingSet,
    then: StoredThen,
    ends: tuple[int, int | None],
    folder: Path,
    on_progress: Progress,
) -> dict[str, Any]:
    """Write the files of a set to a folder; returns what the manifest says of them."""
    on_progress("making rows")
    previous = any(PREVIOUS in (lake.contracts[name].primary_key) for name in declared.features)
    cutoff, known_until = ends
    columns = [column.name for column in lake.contracts["interactions"].columns]
    spine = Spine(connection, declared, then, columns, cutoff, known_until)
    parts = folder / "parts"
    parts.mkdir()
    files = [parts / "rows.parquet"]
    counts = spine.make(files[0], previous)
    split, facts = divide(connection, declared, cutoff)
    leakage = {"rows": 0, "moments": 0}
    if declared.features:
        on_progress("checking that no feature knows the future")
        leakage = check_leakage(lake, connection, declared, then.stored)
        _drop_joins(connection)
        on_progress("joining features")
    # One view after the other, with what it needs: all at once would be joined and sorted in more than memory.
    for name in dict.fromkeys(declared.features):
        needed = ", ".join(map(quote, _needed(lake, connection, name)))
        joined = join_features(
            lake,
            connection,
            connection.sql(f'SELECT {needed} FROM "#rows" ORDER BY "#n"'),
            [name],
            purpose=declared.purpose,
            known=declared.known,
            features=then.features,
        )
        files.append(parts / f"{name}.parquet")
        write_joined(connection, joined, files[-1])
        _drop_joins(connection)
    on_progress("writing files")
    connection.execute("SET preserve_insertion_order = true")
    splits = connection.sql(f'SELECT {split} AS "#split" FROM "#rows" r ORDER BY "#n"')
    written, by_split, test_ids = write_rows(splits, folder, steady(lake, declared.features), files)
    shutil.rmtree(parts)
    return {
        "split": {**facts, "test_ids": test_ids},
        "counts": {**counts, **by_split},
        "columns": _columns(folder, written),
        "files": written,
        "leakage": leakage,
    }


def _needed(lake: Lake, connection: "duckdb.DuckDBPyConnection", name: str) -> list[str]:
    """The columns of `#rows` that a feature view needs."""
    view = lake.contracts[name].view
    assert view is not None
    needed = {TIMESTAMP, *(column.lower() for column in (*view.entity, *view.request))}
    return [column for column in connection.table("#rows").columns if column.lower() in needed]


def _drop_joins(connection: "duckdb.DuckDBPyConnection") -> None:
    """Remove the temporary tables of joins that are done."""
    for (name,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall():
        if name.startswith("#join"):
            connection.execute(f"DROP TABLE {quote(name)}")


def _columns(folder: Path, files: Mapping[str, Any]) -> dict[str, str]:
    import pyarrow.parquet as pq

    for file in files:
        return {field.name: str(field.type) for field in pq.read_schema(folder / file)}
    return {}


def _datasets(lake: Lake, declared: TrainingSet) -> list[str]:
    """The datasets that a set is made of."""
    found = dict.fromkeys(["interactions"])
    if declared.context or reads_agents(declared):
        found["contexts"] = None
    sources = sources_of(lake.contracts)
    for name in declared.features:
        view = lake.contracts[name].view
        assert view is not None
        view = over_histories(view, sources)
        found |= dict.fromkeys(dataset_of(view.source_of(one)) for one in view.features if not one.expression)
        if IDENTITIES in lake.contracts:
            found[IDENTITIES] = None
    return [name for name in found if name in lake.contracts]


def _check_purposes(lake: Lake, declared: TrainingSet) -> None:
    """Refuse columns that may not be used for the purpose of the set, among all that are read."""
    contexts = [*declared.context, *([AGENT] if reads_agents(declared) else [])]
    interactions = {"event_ts", "anonymous_id", *EVENT_COLUMNS, *weight_columns(declared)}
    for dataset, names in (("interactions", interactions), ("contexts", contexts)):
        for column in lake.contracts[dataset].columns if names else ():
            if column.name.lower() in names:
                check_purpose(lake.contracts, lake.contracts[dataset], column, declared.purpose)
    for name in declared.features:
        for column in lake.contracts[name].columns:
            check_purpose(lake.contracts, lake.contracts[name], column, declared.purpose)


def _end(connection: "duckdb.DuckDBPyConnection", then: StoredThen) -> int:
    """The moment after the newest event."""
    rows = then.rows("interactions")
    ((newest,),) = connection.execute(f"SELECT max(epoch_us(event_ts)) FROM ({rows})").fetchall()
    if newest is None:
        raise UserError("There are no interactions to build a training set from. Run: recsys-data ingest --until-empty")
    return newest + 1


def _view(lake: Lake, name: str) -> View:
    contract = lake.contracts[name]
    return View(contract.version, file_digest(contract), contract.path.read_text("utf-8"))


def _lake_then(lake: Lake, settings: Settings, manifest: Manifest, folder: Path) -> Lake:
    """The lake with the feature views as they were; if they have changed, their contracts are written to a folder."""
    now = {name: lake.contracts.get(name) for name in manifest.views}
    if all(one and file_digest(one) == manifest.views[name].sha256 for name, one in now.items()):
        return lake
    (folder / "features").mkdir(parents=True)
    for name, view in manifest.views.items():
        (folder / "features" / f"{name}.odcs.yaml").write_text(view.contract, "utf-8")
    return Lake(lake.catalog, load_contracts(*settings.contract_dirs, folder), lake.warehouse, lake.folder)


def _check_same(manifest: Manifest, made: Mapping[str, Any]) -> None:
    names = manifest.files.keys() | made["files"].keys()
    different = sorted(name for name in names if manifest.files.get(name) != made["files"].get(name))
    if not different:
        return
    then, now, found = manifest.software, _software(), made["counts"]
    changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
    steps = [f"{name} {rows} -> {found.get(name)}" for name, rows in manifest.counts.items() if found.get(name) != rows]
    raise UserError(
        f"{manifest.name} {manifest.version} comes out otherwise in {', '.join(different)} and is left as it is. "
        + (f"Software changed: {', '.join(changed)}; install those versions. " if changed else "")
        + (f"Counts changed: {', '.join(steps)}." if steps else "The counts are the same.")
    )


def _unchanged(settings: Settings, name: str, inputs: str) -> Built | None:
    """The newest version, if it was built from these inputs and is whole."""
    if not versions(settings, name):
        return None
    try:
        newest, folder = read_manifest(settings, name)
    except Permanent:
        # It cannot be read; a new version replaces it.
        return None
    return Built(newest, folder, False) if newest.inputs == inputs and not missing_files(newest, folder) else None


def _publish(whole: Path, folder: Path, manifest: Manifest) -> None:
    """Show a version whose files are written and synced: by one rename, so that it is there whole or not at all."""
    (whole / MANIFEST).write_bytes(encode(manifest))
    sync_all([whole / MANIFEST])
    make_folder(folder.parent)
    whole.replace(folder)
    sync_file(folder.parent)


def _drop_old_files(settings: Settings, name: str) -> None:
    """Remove the files of old versions; those that a crash, or a rebuild, left are removed after the next build."""
    for version in versions(settings, name)[:-FILES_KEPT]:
        for file in (sets_folder(settings, name) / str(version)).glob("*.parquet"):
            file.unlink(missing_ok=True)


@contextmanager
def _mine(settings: Settings, name: str) -> Iterator[None]:
    """Build a set while no other process does.

    Raises:
        Transient: another process builds it, or memory or disk is full.
    """
    import duckdb

    make_folder(settings.training_dir)
    with file_lock(settings.training_dir / f"{name}.lock", LOCK_SECONDS) as mine:
        if not mine:
            raise Transient(f"Another process is building {name}. Try again when it is done.")
        try:
            yield
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            first = str(error).strip().splitlines()[0]
            raise Transient(
                f"{name} could not be built: {first} Free memory, or space in {settings.training_dir} and the folder "
                "for temporary files, and try again."
            ) from None


def _inputs(declared: TrainingSet, stored: Mapping[str, Stored], views: Mapping[str, View], *ends: int | None) -> str:
    """What the rows depend on: of datasets their rows, not their snapshots."""
    rows = {name: (one.positions, one.until, one.rows, one.digest) for name, one in stored.items()}
    shown = {name: one.sha256 for name, one in views.items()}
    return _digest([COMPUTATION, _without_models(declared), rows, shown, ends])


def _moment(microseconds: int) -> str:
    return from_microseconds(microseconds).isoformat()


def _microseconds(moment: str) -> int:
    return to_microseconds(datetime.fromisoformat(moment))


def _without_models(declared: TrainingSet) -> TrainingSet:
    return msgspec.structs.replace(declared, models={})


def _digest(value: Any) -> str:
    return sha256(msgspec.json.encode(value)).hexdigest()


def _software() -> dict[str, str]:
    named = {"recsys-data": "recsys-data", "duckdb": "duckdb", "pyarrow": "pyarrow", "numpy": "numpy"}
    return {name: importlib.metadata.version(package) for name, package in named.items()} | {
        "computation": str(COMPUTATION)
    }
