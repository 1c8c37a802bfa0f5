"""The model registry: versions of registered models in the table `models`, their files by content, aliases.

A registered model is a task, named after its training set; its versions may be of different kinds. `champion` is the
version that is served, `challenger` the newest that did not beat it. Files are written first, in a folder named by
their SHA-256; the row and the alias follow in one commit. A crash in between leaves a folder that nothing refers to.
"""

import json
from datetime import datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.days import MICROSECONDS_PER_DAY, to_microseconds
from recsys_data.durable import make_folder, sync_all, sync_file
from recsys_data.errors import UserError
from recsys_data.leases import exclusive
from recsys_data.settings import Settings
from recsys_data.sql import literal, open_session
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.parquet import file_schema, write_day
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

MODELS = "models"
ALIASES = "recsys_data.aliases"
CHAMPION, CHALLENGER = "champion", "challenger"
LOCK_SECONDS = 30.0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a registered model; columns as in the contract `models`, of which `version` 0 is not registered."""

    model: str
    version: int
    registered_at: datetime
    kind: str
    parameters: dict[str, Any]
    training_set_version: int
    training_set_inputs: str
    metrics: dict[str, float | None]
    artefact: str
    software: dict[str, str]


def store_artefact(settings: Settings, folder: Path) -> str:
    """Move a folder of files to the place that their content names; returns their SHA-256."""
    name = artefact_digest(folder)
    place = artefact_folder(settings, name)
    make_folder(place.parent)
    with exclusive(
        place.parent.with_name("models.lock"), "Another process is storing a model. Try again.", LOCK_SECONDS
    ):
        if not place.is_dir() or artefact_digest(place) != name:
            sync_all(one for one in folder.rglob("*") if one.is_file())
            if place.exists():
                # Somebody removed or changed files of it; it is put aside whole, for a reader sees all files or none.
                place.replace(folder.with_name(f"{folder.name}.damaged"))
            folder.replace(place)
        # Also if it was there: a process may have died between moving it and this.
        sync_file(place.parent)
    return name


def artefact_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of the files of a folder."""
    digest = sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def artefact_folder(settings: Settings, artefact: str) -> Path:
    """Where the files of a version are."""
    return settings.training_parts[1] / artefact


def files_of(settings: Settings, version: Version) -> Path:
    """The folder of the files of a version.

    Raises:
        UserError: they are gone, or not those that were registered.
    """
    folder, name = artefact_folder(settings, version.artefact), f"{version.model} {version.version}"
    if not folder.is_dir():
        raise UserError(f"The files of {name} are gone: {folder}. Restore them, or train again.")
    if artefact_digest(folder) != version.artefact:
        raise UserError(f"The files of {name} have changed: {folder}. Restore them, or train again.")
    return folder


def register(lake: Lake, version: Version, alias: str | None = None, over: int | None = None) -> Version | None:
    """Add a version under the next number, and set an alias to it, in one commit.

    Args:
        lake: where the registry is.
        version: its number does not count.
        alias: None: none is set.
        over: the champion that a new champion replaces; None: there is none.

    Returns:
        The version with its number; None, and nothing is registered, if another champion than `over` is there.
    """
    import pyarrow as pa

    registered = version
    day = to_microseconds(version.registered_at) // MICROSECONDS_PER_DAY

    def add(table: "Table") -> Change | bool:
        nonlocal registered
        there = _read(table, version.model)
        found = next((one for one in there if msgspec.structs.replace(version, version=one.version) == one), None)
        if found:
            # The catalog took a commit that it reported as failed.
            registered = found
            return True
        aliases = _aliases(table)
        if alias == CHAMPION and aliases.get(version.model, {}).get(CHAMPION) != over:
            return False
        registered = msgspec.structs.replace(version, version=max((one.version for one in there), default=0) + 1)
        row = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in _fields(registered)}
        if alias:
            aliases.setdefault(version.model, {})[alias] = registered.version
        rows = pa.Table.from_pylist([row], schema=file_schema(table.schema(), list(row)))
        return Change(added=[write_day(table, day, [rows], [])], properties={ALIASES: json.dumps(aliases)})

    return registered if compare_and_set(lake.table(MODELS), add) else None


def set_alias(lake: Lake, model: str, version: int, alias: str) -> None:
    """Let an alias name a version.

    Raises:
        UserError: there is no such version.
    """
    find(lake, model, str(version))

    def name(table: "Table") -> Change:
        aliases = _aliases(table)
        aliases.setdefault(model, {})[alias] = version
        # A challenger that was promoted challenges nobody any more.
        if alias == CHAMPION and aliases[model].get(CHALLENGER) == version:
            del aliases[model][CHALLENGER]
        return Change(properties={ALIASES: json.dumps(aliases)})

    compare_and_set(lake.table(MODELS), name)


def registered(lake: Lake, model: str | None = None) -> list[Version]:
    """The versions of a model (None: of all), the oldest first."""
    return _read(lake.table(MODELS), model)


def aliases_of(lake: Lake) -> dict[str, dict[str, int]]:
    """Model -> alias -> version."""
    return _aliases(lake.table(MODELS))


def find(lake: Lake, model: str, version: str = CHAMPION) -> Version:
    """A version of a model by number or alias.

    Raises:
        UserError: there is none.
    """
    there = registered(lake, model)
    number = aliases_of(lake).get(model, {}).get(version) if not version.isdecimal() else int(version)
    for one in there:
        if one.version == number:
            return one
    listed = ", ".join(str(one.version) for one in there) or "none"
    raise UserError(f"The model {model} has no version {version}; registered are {listed}. Run: recsys-data models")


def _fields(version: Version) -> list[tuple[str, Any]]:
    return [(name, getattr(version, name)) for name in version.__struct_fields__]


def _aliases(table: "Table") -> dict[str, dict[str, int]]:
    return json.loads(table.properties.get(ALIASES, "{}"))


def _read(table: "Table", model: str | None) -> list[Version]:
    only = f"WHERE model = {literal(model)}" if model is not None else ""
    with open_session() as connection:
        found = connection.execute(f"FROM ({relation(table, data_files(table))}) {only} ORDER BY model, version")
        names = [one[0] for one in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    parsed = [{name: _value(name, value) for name, value in row.items()} for row in rows]
    return [msgspec.convert(row, Version) for row in parsed]


def _value(name: str, value: Any) -> Any:
    return json.loads(value) if name in ("parameters", "metrics", "software") else value
