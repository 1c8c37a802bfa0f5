"""The lake of a backup becomes one again whose catalog or warehouse is not in the state folder.

Data flow: copies with their SHA-256 checked -> the same places in the warehouse -> tables registered in the catalog.
Until then the catalog knows none of them. If interrupted, the same call continues.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from recsys_data.errors import Permanent, UserError
from recsys_data.operations.backup.lake import CATALOG, is_elsewhere
from recsys_data.operations.backup.store import BLOCK, Point, digest_of
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import NAMESPACE, metadata_locations, open_catalog
from recsys_data.storage.iceberg.pyiceberg_patches import file_io_of

if TYPE_CHECKING:
    from recsys_data.storage.iceberg.file_io import DurableFileIO

LAKE = "lake/"


def check_lake(settings: Settings, point: Point) -> None:
    """Refuse a place other than that of the backup, or one that has tables.

    Raises:
        UserError: says why.
    """
    there = settings.warehouse_location if is_elsewhere(settings) else ""
    if there != point.warehouse:
        raise UserError(
            f"The lake of the backup is in {point.warehouse or 'its state folder'}, and the settings say "
            f"{there or 'the state folder'}. A lake cannot move: set RECSYS_DATA_WAREHOUSE and RECSYS_DATA_CATALOG."
        )
    if point.warehouse and (found := metadata_locations(open_catalog(settings))):
        raise UserError(f"The catalog has tables already: {', '.join(sorted(found)[:3])}. Restore into an empty one.")


def bring_back(settings: Settings, folder: Path, point: Point) -> None:
    """Bring the files of the lake to where they were, and register its tables.

    Raises:
        Permanent: a copy is damaged.
    """
    catalog = open_catalog(settings)
    io = cast("DurableFileIO", file_io_of(catalog, point.warehouse))
    listed: dict[str, str] = {}
    for one in point.files:
        if not one.target.startswith(LAKE):
            continue
        path = folder / one.path
        if not path.is_file() or digest_of(path) != one.sha256:
            raise Permanent(f"{path} is missing or was changed, so the backup is damaged. Use another.")
        if one.target == f"{LAKE}{CATALOG}":
            listed = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        else:
            _put(io, path, f"{point.warehouse}/{one.target.removeprefix(LAKE)}", one.bytes)
    known = metadata_locations(catalog)
    for name, location in listed.items():
        if name not in known:
            catalog.register_table((NAMESPACE, name), location)


def _put(io: "DurableFileIO", path: Path, location: str, size: int) -> None:
    """Files of a lake never change, so that one of that size is the same."""
    found = io.found(location)
    if found is None or found.bytes != size:
        with path.open("rb") as copied, io.new_output(location).create(overwrite=True) as target:
            shutil.copyfileobj(copied, cast(BinaryIO, target), BLOCK)
