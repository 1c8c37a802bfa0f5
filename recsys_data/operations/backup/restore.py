"""A backup becomes a state folder again, or is verified.

Data flow: point of a backup -> copies with their SHA-256 checked -> `$DIR/.restoring/` -> renamed into place, the lake
last. If interrupted, the same command continues. The state folder is the one that was backed up, because Iceberg's
metadata name files by their whole path. Run alone: `recsys-data restore FOLDER`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_data.durable import sync_file
from recsys_data.errors import Permanent, UserError
from recsys_data.operations.backup.elsewhere import LAKE, bring_back, check_lake
from recsys_data.operations.backup.store import OnProgress, Point, alone, copy, digest_of, is_backup, read_point
from recsys_data.settings import Settings

COMPLETE = ".complete"
SHOWN = 3


def restore(settings: Settings, folder: Path, progress: OnProgress = lambda done, total: None) -> Point:
    """Make the state folder what it was when the backup was made.

    Raises:
        UserError: there is no backup, or the state folder is another or not empty; nothing was changed.
        Permanent: the backup is damaged; the state folder stays empty.
    """
    with opened(folder) as point:
        staged = settings.restoring_dir
        if not (staged / COMPLETE).exists():
            _check_place(settings, point, folder)
            shutil.rmtree(staged, ignore_errors=True)
            _stage(folder, point, staged, progress)
        if point.warehouse:
            bring_back(settings, folder, point)
    _move(staged, settings.data_dir)
    return point


def verify(folder: Path, progress: OnProgress = lambda done, total: None) -> Point:
    """Read everything of a backup, and return its point.

    Raises:
        UserError: there is no backup.
        Permanent: files are damaged or missing; the message names some.
    """
    wrong = []
    with opened(folder) as point:
        for number, one in enumerate(point.files, start=1):
            path = folder / one.path
            if not path.is_file():
                wrong.append(f"{path} is missing")
            elif digest_of(path) != one.sha256:
                wrong.append(f"{path} was changed")
            progress(number, len(point.files))
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise Permanent(
            f"The backup is damaged: {'; '.join(wrong[:SHOWN])}{more}. Remove these files: the next `recsys-data "
            "backup` copies them again."
        )
    return point


@contextmanager
def opened(folder: Path) -> Iterator[Point]:
    """The point of a backup, which nothing changes meanwhile.

    Raises:
        UserError: there is none.
        Transient: another process is at work on the backup.
    """
    if not is_backup(folder):
        raise UserError(f"There is no backup in {folder}: expected a folder that `recsys-data backup` wrote.")
    with alone(folder):
        point = read_point(folder)
        if point is None:
            raise UserError(f"The backup in {folder} was never completed. Use another, or make it again.")
        yield point


def _check_place(settings: Settings, point: Point, folder: Path) -> None:
    if str(settings.data_dir) != point.data_dir:
        raise UserError(
            f"The backup is of the state folder {point.data_dir}, and RECSYS_DATA_DIR is {settings.data_dir}. A lake "
            "cannot move, because its metadata name files by their whole path: restore to the same path, e.g. mounted "
            "there on another machine or in a container."
        )
    check_lake(settings, point)
    there = [path.name for path in settings.data_dir.iterdir()] if settings.data_dir.is_dir() else []
    if set(there) - {settings.restoring_dir.name}:
        raise UserError(
            f"{settings.data_dir} is not empty ({', '.join(sorted(there)[:SHOWN])}). Stop everything that uses it and "
            f"move it away, e.g. to {settings.data_dir}.old; then restore {folder} again."
        )


def _stage(folder: Path, point: Point, staged: Path, progress: OnProgress) -> None:
    # A partition without a line is a partition too.
    staged.mkdir(parents=True, exist_ok=True)
    for partition in point.positions:
        (staged / "log" / str(partition)).mkdir(parents=True)
    for number, one in enumerate(point.files, start=1):
        if point.warehouse and one.target.startswith(LAKE):
            continue
        path = folder / one.path
        try:
            digest = copy(path, staged / one.target, one.bytes, one.mtime)
        except FileNotFoundError:
            raise Permanent(f"{path} is missing, so the backup is damaged. Use another.") from None
        if digest != one.sha256:
            raise Permanent(f"{path} was changed, so the backup is damaged. Use another.")
        progress(number, len(point.files))
    for parent in {staged, *(path for path in staged.rglob("*") if path.is_dir())}:
        sync_file(parent)
    (staged / COMPLETE).touch()
    sync_file(staged)


def _move(staged: Path, folder: Path) -> None:
    """Put everything in its place; the lake last, because without it no state counts as present."""
    parts = sorted((path for path in staged.iterdir() if path.name != COMPLETE), key=lambda path: path.name == "lake")
    for path in parts:
        path.replace(folder / path.name)
        sync_file(folder)
    (staged / COMPLETE).unlink()
    staged.rmdir()
    sync_file(folder)
