"""The manifest of a training set: what its files were built from, so that the same bytes can be built again.

Versions of a set are folders, `DATA_DIR/training/sets/NAME/VERSION`, with `manifest.json` and a Parquet file for each
split. A folder appears whole or not at all.
"""

from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec

from recsys_data.errors import Permanent, UserError
from recsys_data.features.stored import Stored
from recsys_data.settings import Settings
from recsys_data.training.sets.declared import TrainingSet, load_sets, named

MANIFEST = "manifest.json"
FORMAT = 1


class View(msgspec.Struct, frozen=True):
    """A feature view as it was.

    Attributes:
        version: of its contract.
        sha256: of the contract's file.
        contract: text of that file.
    """

    version: str
    sha256: str
    contract: str


class File(msgspec.Struct, frozen=True):
    """A file of rows.

    Attributes:
        rows: how many.
        positives: how many of them have a label above 0.
        bytes: its size.
        sha256: of its content.
    """

    rows: int
    positives: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version of a training set is.

    Attributes:
        name: of the training set.
        version: from 1.
        built_at: when, ISO 8601 in UTC.
        inputs: SHA-256 of all that the rows depend on; builds with the same inputs give the same files.
        declaration: what was declared, without the models.
        purpose: what its features may be used for.
        known: `commit` or `event_time`.
        cutoff: ISO 8601; what happened from then on is not in it.
        known_until: ISO 8601; what became known after it is not in it; None: all that was stored is.
        label_version: SHA-256 of what decides a label: types, weights, window, maturity.
        sources: dataset -> what it held.
        views: feature view -> what it was.
        split: kind, borders, and `test_ids`, the SHA-256 of the ids of the test rows.
        counts: step -> rows, as `spine.Spine.make` says, then rows by split and in the gap.
        columns: of the files, name -> type.
        files: name -> file.
        leakage: how many rows were computed again without their future, and at how many moments.
        software: name -> version of what wrote the files.
        format: of the manifest.
    """

    name: str
    version: int
    built_at: str
    inputs: str
    declaration: TrainingSet
    purpose: str
    known: str
    cutoff: str
    known_until: str | None
    label_version: str
    sources: dict[str, Stored]
    views: dict[str, View]
    split: dict[str, Any]
    counts: dict[str, int]
    columns: dict[str, str]
    files: dict[str, File]
    leakage: dict[str, int]
    software: dict[str, str]
    format: int = FORMAT


def sets_folder(settings: Settings, name: str) -> Path:
    """Where the versions of a training set are."""
    return settings.training_parts[0] / name


def versions(settings: Settings, name: str) -> list[int]:
    """The versions of a training set that were built, the oldest first."""
    folder = sets_folder(settings, name)
    return sorted(int(one.name) for one in folder.glob("*") if one.name.isdecimal() and (one / MANIFEST).is_file())


def next_version(settings: Settings, name: str) -> int:
    """The number of the next version: above all folders, also those whose manifest is gone."""
    return max((int(one.name) for one in sets_folder(settings, name).glob("*") if one.name.isdecimal()), default=0) + 1


def read_manifest(settings: Settings, name: str, version: int | None = None) -> tuple[Manifest, Path]:
    """The manifest of a version (None: the newest), and the version's folder.

    Raises:
        UserError: there is no such version, or no such training set.
        Permanent: the manifest cannot be read.
    """
    there = versions(settings, name)
    if not there:
        # A set that is not declared any more can still be shown and rebuilt.
        named(name, load_sets(*settings.contract_dirs))
    if not there or (version is not None and version not in there):
        built = f"there are {', '.join(map(str, there))}" if there else "none was built"
        raise UserError(
            f"{name} has no version {version or ''}".rstrip() + f": {built}. Run: recsys-data training-set build {name}"
        )
    folder = sets_folder(settings, name) / str(version or there[-1])
    path = folder / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
        for moment in (found.cutoff, found.known_until):
            datetime.fromisoformat(moment or found.cutoff)
    except (msgspec.DecodeError, ValueError) as error:
        raise Permanent(f"{path} is damaged: {error}. Restore it from a backup, or build again.") from None
    if found.format != FORMAT:
        raise Permanent(
            f"{path} has the format {found.format}, and this version of recsys-data reads {FORMAT}. "
            f"Install the one that wrote it ({found.software.get('recsys-data')}), or build again."
        )
    return found, folder


def missing_files(manifest: Manifest, folder: Path) -> list[str]:
    """The files of a version that are not in its folder, or not of their size."""
    there = {path.name: path.stat().st_size for path in folder.glob("*.parquet")}
    return [name for name, file in manifest.files.items() if there.get(name) != file.bytes]


def check_files(manifest: Manifest, folder: Path) -> None:
    """Refuse to read files that are not those of the manifest.

    Raises:
        UserError: a file is not there any more.
        Permanent: a file has another content.
    """
    what = f"{manifest.name} {manifest.version}"
    rebuild = f"Run: recsys-data training-set rebuild {manifest.name} --version {manifest.version}"
    for name, described in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{what} has no {name} any more: files of older versions are removed. {rebuild}")
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        if digest != described.sha256:
            raise Permanent(f"{path} is damaged: its SHA-256 is not that of the manifest. {rebuild}")


def encode(manifest: Manifest) -> bytes:
    """The text of a manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
