"""A backup becomes a state folder again, or is checked.

Data flow: point of a backup -> copies with their SHA-256 checked -> `$DIR/.restoring/` -> renamed into place, last of
all the lake. Broken off at any moment it is gone on with by the same command. The state folder is the one that was
backed up, for Iceberg's metadata name files by their whole path. Run alone: `recsys-data restore FOLDER`.
"""

import shutil
from pathlib import Path

from recsys_data.durable import sync_file
from recsys_data.errors import Permanent, UserError
from recsys_data.operations.backup.backup import Facts, Progress, alone, facts_of, opened
from recsys_data.operations.backup.store import INDEX, Store, copy, digest_of
from recsys_data.settings import Settings

STAGED = ".restoring"
COMPLETE = ".complete"
SHOWN = 3


def restore(settings: Settings, folder: Path, progress: Progress | None = None) -> Facts:
    """Make the state folder what it was when the backup was made.

    Raises:
        UserError: there is no backup, the state folder is another or not empty; nothing was changed.
        Permanent: the backup is damaged; the state folder stays empty.
    """
    progress = progress or Progress()
    check_backup(folder)
    with alone(folder), opened(folder) as store:
        facts = _facts(store)
        staged = settings.data_dir / STAGED
        if not (staged / COMPLETE).exists():
            _check_place(settings, facts, folder)
            shutil.rmtree(staged, ignore_errors=True)
            _stage(store, facts, staged, progress)
    _move(staged, settings.data_dir)
    return facts


def verify(folder: Path, progress: Progress | None = None) -> tuple[Facts, int, int]:
    """Read everything of a backup; returns what it says of itself, its files and its bytes.

    Raises:
        UserError: there is no backup.
        Permanent: files are damaged or missing; the message names some.
    """
    progress = progress or Progress()
    check_backup(folder)
    with alone(folder), opened(folder) as store:
        facts = _facts(store)
        files, size = store.size()
        progress.expected(size)
        wrong = []
        for one in store.point():
            path = folder / one.path
            if not path.is_file():
                wrong.append(f"{path} is missing")
            elif path.stat().st_size != one.bytes or digest_of(path, progress.done) != one.sha256:
                wrong.append(f"{path} is not what was copied")
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise Permanent(
            f"The backup is damaged: {'; '.join(wrong[:SHOWN])}{more}. Remove these files: the next `recsys-data "
            "backup` copies them again."
        )
    return facts, files, size


def check_backup(folder: Path) -> None:
    """Refuse a folder that is none of a backup.

    Raises:
        UserError: says so.
    """
    if not (folder / INDEX).is_file():
        raise UserError(f"There is no backup in {folder}: expected a folder that `recsys-data backup` wrote.")


def _facts(store: Store) -> Facts:
    facts = facts_of(store)
    if facts is None:
        raise UserError(f"The backup in {store.folder} was never completed. Use another, or make it again.")
    return facts


def _check_place(settings: Settings, facts: Facts, folder: Path) -> None:
    if str(settings.data_dir) != facts.data_dir:
        raise UserError(
            f"The backup is of the state folder {facts.data_dir}, and RECSYS_DATA_DIR is {settings.data_dir}. A lake "
            "does not move, for its metadata name files by their whole path: restore to the same path, e.g. mounted "
            "there on another machine or in a container."
        )
    there = [path.name for path in settings.data_dir.iterdir()] if settings.data_dir.is_dir() else []
    if set(there) - {STAGED}:
        raise UserError(
            f"{settings.data_dir} is not empty ({', '.join(sorted(there)[:SHOWN])}). Stop everything that uses it and "
            f"move it away, e.g. to {settings.data_dir}.old; then restore {folder} again."
        )


def _stage(store: Store, facts: Facts, staged: Path, progress: Progress) -> None:
    progress.step("restoring")
    progress.expected(store.size()[1])
    # A partition without a line is a partition too.
    for partition in facts.positions:
        (staged / "log" / str(partition)).mkdir(parents=True)
    for one in store.point():
        path = store.folder / one.path
        try:
            with path.open("rb", buffering=0) as file:
                digest = copy(file.fileno(), staged / one.target, one.bytes, one.mtime, progress.done)
        except FileNotFoundError:
            raise Permanent(f"{path} is missing, so that the backup is damaged. Use another.") from None
        if digest != one.sha256:
            raise Permanent(f"{path} is not what was copied, so that the backup is damaged. Use another.")
    for parent in {staged, *(path for path in staged.rglob("*") if path.is_dir())}:
        sync_file(parent)
    (staged / COMPLETE).touch()
    sync_file(staged)


def _move(staged: Path, folder: Path) -> None:
    """Put everything in its place; the lake last, for without it nothing counts as there."""
    parts = sorted((path for path in staged.iterdir() if path.name != COMPLETE), key=lambda path: path.name == "lake")
    for path in parts:
        path.replace(folder / path.name)
        sync_file(folder)
    (staged / COMPLETE).unlink()
    staged.rmdir()
    sync_file(folder)
