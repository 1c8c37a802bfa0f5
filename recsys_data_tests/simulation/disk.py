"""The disk of a simulated machine: which of what was written outlives a power failure.

The files lie in a real folder, because native code (Parquet, DuckDB, SQLite) reads and writes them. What is durable
is kept beside, by inode: the content of a file as of its last sync, and the names in a folder as of its last sync.
`survive` makes of both a folder as it might be found after a power failure: POSIX leaves open what becomes of anything
that was not synced. Inode numbers must not be used twice, as in a tmpfs.
"""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# SQLite syncs by itself; its commits are modelled as a whole.
DATABASE = ".db"
JOURNALS = ("-journal", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name in a folder refers to."""

    inode: int
    is_folder: bool


Names = dict[str, Entry]


@dataclass(slots=True)
class Transaction:
    """The last commit of a database: its content before, and whether a power failure may still roll it back."""

    before: bytes
    durable: bool


@dataclass
class Disk:
    """A folder, and what of it is durable."""

    folder: Path
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, Names] = field(default_factory=dict)
    transactions: dict[Path, Transaction] = field(default_factory=dict)
    _dropped: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def settle(self) -> None:
        """Take everything that is there for durable, as after a start of the machine."""
        self.contents, self.names, self.transactions, self._dropped = {}, {}, {}, {}
        self._settle(self.folder)

    def settle_below(self, folder: Path) -> None:
        """Take for durable what lies in a folder, and that it is there."""
        self._settle(folder)
        inner = folder
        for outer in folder.parents:
            if not outer.is_relative_to(self.folder):
                break
            entry = names_in(outer)[inner.name]
            self.names.setdefault(outer.stat().st_ino, {})[inner.name] = entry
            inner = outer

    def _settle(self, folder: Path) -> None:
        for parent, _, files in os.walk(folder):
            self.names[Path(parent).stat().st_ino] = names_in(Path(parent))
            for name in files:
                path = Path(parent, name)
                self.contents[path.stat().st_ino] = path.read_bytes()

    def synced(self, descriptor: int) -> None:
        """A file or folder was synced by its descriptor."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.folder):
            return
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self.names[inode] = names_in(path)
            for database, transaction in self.transactions.items():
                # The journal's removal is on the disk now, too.
                transaction.durable |= database.parent == path
            return
        self.contents[inode] = self.without_dropped(inode, _read(descriptor))

    def sync_failed(self, descriptor: int) -> None:
        """A sync failed, and the kernel forgot that these pages were never written: a later sync passes them over."""
        inode = os.fstat(descriptor).st_ino
        begin, end = len(self.contents.get(inode, b"")), os.fstat(descriptor).st_size
        if begin < end:
            self._dropped.setdefault(inode, []).append((begin, end))

    def written(self, descriptor: int, begin: int, end: int) -> None:
        """Bytes were written, and so are there for the next sync."""
        inode = os.fstat(descriptor).st_ino
        if dropped := self._dropped.get(inode):
            parts = [((low, min(high, begin)), (max(low, end), high)) for low, high in dropped]
            self._dropped[inode] = [part for pair in parts for part in pair if part[0] < part[1]]

    def without_dropped(self, inode: int, content: bytes) -> bytes:
        """The content of a file with zeros in the place of what will never be written."""
        changed = bytearray(content)
        for begin, end in self._dropped.get(inode, ()):
            changed[begin:end] = bytes(len(changed[begin:end]))
        return bytes(changed)

    def committed(self, database: Path, before: bytes, durable: bool) -> None:
        """A transaction was committed; without `durable` the removal of its journal is not on the disk yet."""
        self.transactions[database] = Transaction(before, durable)

    def survive(self, target: Path, rng: random.Random) -> None:
        """Write to `target` what is left of the folder after a power failure at this moment."""
        mood = rng.choice(("kept", "lost", "mixed", "mixed", "mixed"))
        chance = {"kept": 1.0, "lost": 0.0, "mixed": rng.choice((0.2, 0.5, 0.8))}[mood]
        _Survivor(self, rng, lambda: rng.random() < chance).write(self.folder, target)

    def replace(self, image: Path) -> None:
        """Start again from an image."""
        shutil.rmtree(self.folder)
        image.rename(self.folder)
        self.settle()


class _Survivor:
    """One outcome: each change that was not synced is kept or not, files are torn."""

    def __init__(self, disk: Disk, rng: random.Random, is_kept: Callable[[], bool]) -> None:
        self.disk = disk
        self.rng = rng
        self.is_kept = is_kept
        self.now: dict[int, Names] = {}
        self.paths: dict[int, Path] = {}

    def write(self, folder: Path, target: Path) -> None:
        root = folder.stat().st_ino
        self._walk(folder, root)
        self._renames = self._decide_renames()
        self._copy_folder(root, target)

    def _walk(self, folder: Path, inode: int) -> None:
        self.paths[inode] = folder
        self.now[inode] = names_in(folder)
        for name, entry in self.now[inode].items():
            if entry.is_folder:
                self._walk(folder / name, entry.inode)
            else:
                self.paths[entry.inode] = folder / name

    def _decide_renames(self) -> dict[tuple[int, str], bool]:
        """For the names that renames changed: whether they are as after it. A rename is never half done."""
        before = {entry.inode: (at, name) for at, names in self.disk.names.items() for name, entry in names.items()}
        after = {entry.inode: (at, name) for at, names in self.now.items() for name, entry in names.items()}
        moved = sorted((before[inode], after[inode]) for inode in before.keys() & after.keys())
        decided: dict[tuple[int, str], bool] = {}
        for old, new in moved:
            if old != new:
                kept = decided.get(old, decided.get(new, self.is_kept()))
                decided[old] = decided[new] = kept
        return decided

    def _copy_folder(self, inode: int, target: Path) -> None:
        target.mkdir(exist_ok=True)
        old, new = self.disk.names.get(inode, {}), self.now.get(inode, {})
        for name in sorted(old.keys() | new.keys()):
            entry = self._entry(inode, name, old.get(name), new.get(name))
            if entry is None:
                continue
            if entry.is_folder:
                self._copy_folder(entry.inode, target / name)
            elif (content := self._content(entry.inode, name)) is not None:
                (target / name).write_bytes(content)
                if entry.inode in self.paths:
                    shutil.copystat(self.paths[entry.inode], target / name)

    def _entry(self, inode: int, name: str, old: Entry | None, new: Entry | None) -> Entry | None:
        # SQLite syncs the folder of a database before its first commit.
        if old == new or name.endswith((DATABASE, *JOURNALS)):
            return new
        return new if self._renames.get((inode, name), self.is_kept()) else old

    def _content(self, inode: int, name: str) -> bytes | None:
        durable = self.disk.contents.get(inode, b"")
        if inode not in self.paths:
            return durable
        path = self.paths[inode]
        now = self.disk.without_dropped(inode, path.read_bytes())
        if name.endswith((DATABASE, *JOURNALS)):
            return self._database(path, now)
        if now == durable:
            return now
        return self._torn(durable, now) if now.startswith(durable) else (now if self.is_kept() else durable)

    def _database(self, path: Path, now: bytes) -> bytes | None:
        for suffix in JOURNALS:
            path = path.with_name(path.name.removesuffix(suffix))
        last = self.disk.transactions.get(path)
        if last is None or last.durable or self.is_kept():
            return now
        # The journal came back and undid the last commit.
        last.durable = True
        return last.before

    def _torn(self, durable: bytes, now: bytes) -> bytes:
        """What is left of bytes that were appended and not synced."""
        if self.is_kept():
            return now
        fresh = now[len(durable) :]
        cut = self.rng.randrange(len(fresh) + 1)
        # The new length may be on the disk before the blocks are.
        kept = self.rng.choice((b"", fresh[:cut], fresh[:cut] + bytes(len(fresh) - cut), bytes(cut) + fresh[cut:]))
        return durable + kept


def names_in(folder: Path) -> Names:
    """The names in a folder, now."""
    with os.scandir(folder) as entries:
        return {one.name: Entry(one.inode(), one.is_dir(follow_symlinks=False)) for one in entries}


def _read(descriptor: int) -> bytes:
    # By name, for a file may have been opened for writing only.
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:  # noqa: PTH123
        return file.read()
