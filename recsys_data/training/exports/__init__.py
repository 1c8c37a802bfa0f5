"""Exports of training sets to the formats of libraries and services.

Data flow: a version's Parquet files -> `Rows`, one SQL relation for each split -> the files of a format and
`export.json`, in a folder that appears whole or not at all. Rows are streamed: memory does not grow with their number,
but for matrices. Run alone: `recsys-data training-set export NAME --format lightgbm --out FOLDER`.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recsys_data.durable import scratch, sync_all, sync_file
from recsys_data.errors import UserError

if TYPE_CHECKING:
    from recsys_data.training.exports.rows import Options, Rows, Written
    from recsys_data.training.sets.manifest import Manifest

SUMMARY = "export.json"
STAGING = ".recsys-data-export"


@dataclass(frozen=True, slots=True)
class Format:
    """A format that training sets are exported to.

    Attributes:
        name: as the command line takes it.
        help: what it is for, in one line.
        module: of this package; its function `write` makes the files.
    """

    name: str
    help: str
    module: str

    def write(self, rows: "Rows", folder: Path, options: "Options") -> "Written":
        """Write the files of this format to an empty folder."""
        return import_module(f"{__name__}.{self.module}").write(rows, folder, options)


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("recbole", "RecBole: atomic files, one .inter for each split.", "recbole"),
        Format("implicit", "implicit, scipy: a matrix of users and items for each split.", "implicit_matrices"),
        Format("lightgbm", "LightGBM: CSV with query groups and positions, for rankers.", "lightgbm_files"),
        Format("personalize", "Amazon Personalize: interactions as CSV, and their Avro schema.", "personalize"),
        Format("google-retail", "Google Retail: user events as JSON lines.", "google_retail"),
    )
}


def export(
    folder: Path,
    manifest: "Manifest",
    format: str,
    out: Path,
    *,
    currency: str | None = None,
    memory_bytes: int | None = None,
) -> list[Path]:
    """Export a version of a training set.

    Args:
        folder: of the version.
        manifest: of the version.
        format: one of `FORMATS`.
        out: the folder to make; it may exist if it is empty.
        currency: ISO 4217 code of the labels of purchases (`google-retail` only).
        memory_bytes: what sorting may hold before it spills; None: most of the machine's memory.

    Returns:
        The files that were written, and `export.json` that describes them.

    Raises:
        UserError: there is no such format, the set cannot have it, an id has no place in it, or `out` is not empty.
        Permanent: the files of the version are not as its manifest says.
    """
    from recsys_data.training.exports.rows import Options, Rows

    if format not in FORMATS:
        raise UserError(f"{format!r} is not a format of exports; choose from {', '.join(FORMATS)}.")
    if currency is not None and format != "google-retail":
        raise UserError(f"The format {format} takes no currency; only google-retail does.")
    out = out.absolute()
    _check_empty(out)
    with scratch(out.parent, STAGING) as staging, Rows(folder, manifest, memory_bytes) as rows:
        made = staging / "files"
        made.mkdir()
        written = FORMATS[format].write(rows, made, Options(currency))
        summary = {
            "training_set": manifest.name,
            "version": manifest.version,
            "inputs": manifest.inputs,
            "format": format,
            "rows": written.rows,
            "rows_left_out": written.rows_left_out,
            "columns_left_out": written.columns_left_out,
        }
        (made / SUMMARY).write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
        files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
        sync_all(made / file for file in files)
        # Refuses a folder into which somebody wrote meanwhile.
        _check_empty(out)
        made.replace(out)
        sync_file(out.parent)
    return [out / file for file in files]


def _check_empty(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} is there already, and is not an empty folder. Name a new folder, or remove it first.")
