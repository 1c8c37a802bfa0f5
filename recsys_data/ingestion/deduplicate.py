"""Which event ids are stored already, and under which log position: 16 bytes of MD5 per id, sorted.

Data flow: the lake's home tables -> sorted runs (files below `DIR/ingest/seen`, memory-mapped) + what this
process added since -> `SeenIds.keep`. The files are a cache: whatever they lack is read from the lake when
they are opened, and they are thrown away when they do not belong to it, or are damaged: an id that is not found
again would be stored twice. 16 bytes tell more ids apart than can ever be stored; a deliberate collision costs its
author one event.
"""

import logging
import random
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import numpy.typing as npt

from recsys_data.ingestion.lock import file_lock
from recsys_data.lake.files import sync_file, write_atomically

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.uint64]  # shape (4, n): MD5 high, MD5 low, log partition, log offset; sorted by the first

HIGH, LOW, PARTITION, OFFSET = range(4)
MANIFEST = "manifest.json"
# Runs are merged in memory; this bounds what a merge takes (32 bytes a row, twice).
MERGED_ROWS = 4_000_000
MEMORY_ROWS = 1_000_000
FANOUT = 6
# What one opening reads to see whether it is damaged, a third of a second from memory; of more, some runs each time.
CHECKED_BYTES = 1024**3
BLOCK = 1 << 20
# Two drains share these files for a moment only: when the lock between them is gone, or works on two machines.
WAIT_SECONDS = 10.0


def key_of(event_id: str) -> tuple[str, str, str]:
    """SQL of an event id's key as a whole, and of its halves in terms of a column `key`."""
    return f"md5_number(coalesce({event_id}, ''))", "(key >> 64)::UBIGINT", f"(key & {2**64 - 1})::UBIGINT"


class Manifest(msgspec.Struct):
    """What the run files cover: every row of the lake `identity` before `positions`; by file, its CRC-32."""

    identity: str = ""
    positions: dict[int, int] = {}
    runs: dict[str, int] = {}


class SeenIds:
    """The ids of all stored events. Not thread-safe."""

    def __init__(self, folder: Path, identity: str, positions: Mapping[int, int]) -> None:
        """Open the cache of the lake `identity` (unique per table), whose rows end at `positions`."""
        self.folder = folder
        self._manifest = Manifest(identity)
        self._stored: list[Keys] = []
        self._recent: list[Keys] = []
        with self._alone() as alone:
            if alone:
                self._open(positions)

    @property
    def covered(self) -> Mapping[int, int]:
        """Rows from these positions on must be given to `add` before `keep` can be trusted."""
        return self._manifest.positions

    def add(self, keys: Keys) -> None:
        """Remember ids: `keys` of shape (4, n), in any order."""
        if keys.shape[1]:
            self._recent.append(_sorted(keys))
        if len(self._recent) > FANOUT:
            self._recent = list(_merge(self._recent))

    def keep(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of these events are to be stored; the others are duplicates. Shape (n,).

        An id that is stored under the very same position is this event, met again after a crash, and is kept.
        Of several new events with one id the first is kept, in the order given.
        """
        order = np.lexsort((np.arange(keys.shape[1]), keys[LOW], keys[HIGH]))
        probe = keys[:, order]
        first = np.ones(len(order), bool)
        first[1:] = (probe[HIGH, 1:] != probe[HIGH, :-1]) | (probe[LOW, 1:] != probe[LOW, :-1])
        kept = first
        for run in (*self._stored, *self._recent):
            found, itself = _probe(run, probe)
            kept = np.where(found, itself, kept)
        result = np.empty(len(order), bool)
        result[order] = kept
        return result

    def persist(self, positions: Mapping[int, int], force: bool = False) -> None:
        """Write what was added since to the cache, if it is much; the lake must hold all rows before `positions`."""
        rows = sum(run.shape[1] for run in self._recent)
        if rows == 0 or (rows < MEMORY_ROWS and not force):
            return
        with self._alone() as alone:
            # Another drain has saved or thrown away what this one knows: one of them is about to end, and the
            # files are the other's.
            if alone and self._read() == self._manifest:
                self._save(positions)

    def _save(self, positions: Mapping[int, int]) -> None:
        stored = zip(self._manifest.runs.items(), self._stored, strict=True)
        runs = dict(named for named, run in stored if not _is_small(run))
        for run in _merge([*self._small_stored(), *self._recent]):
            name = f"{uuid.uuid4().hex}.npy"
            _write(self.folder / name, run)
            sync_file(self.folder / name)
            runs[name] = _checksum(self.folder / name)
        old = self._manifest.runs.keys() - runs.keys()
        self._manifest = Manifest(self._manifest.identity, dict(positions), runs)
        write_atomically(self.folder / MANIFEST, msgspec.json.encode(self._manifest))
        self._stored = self._load(self._manifest)
        self._recent = []
        for name in old:
            (self.folder / name).unlink(missing_ok=True)

    def _small_stored(self) -> list[Keys]:
        return [np.asarray(run) for run in self._stored if _is_small(run)]

    def _alone(self) -> AbstractContextManager[bool]:
        # Beside the folder, for the folder may be thrown away.
        return file_lock(self.folder.with_name(f"{self.folder.name}.lock"), WAIT_SECONDS)

    def _read(self) -> Manifest:
        """The manifest as it was saved; an empty one of this lake if there is none."""
        try:
            return msgspec.json.decode((self.folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            return Manifest(self._manifest.identity)

    def _load(self, manifest: Manifest) -> list[Keys]:
        return [np.load(self.folder / name, mmap_mode="r") for name in manifest.runs]

    def _open(self, positions: Mapping[int, int]) -> None:
        """Take the cache as it was saved; begin anew where there is none, it is not whole, or not of this lake."""
        manifest = self._read()
        ahead = any(at > positions.get(partition, 0) for partition, at in manifest.positions.items())
        if manifest.identity == self._manifest.identity and not ahead and self._is_whole(manifest):
            self._manifest, self._stored = manifest, self._load(manifest)
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in {path.name for path in self.folder.glob("*.npy")} - manifest.runs.keys():
            (self.folder / leftover).unlink()

    def _is_whole(self, manifest: Manifest) -> bool:
        """Whether the run files are there and, of those that are looked at, each is as it was written."""
        left = CHECKED_BYTES
        for name in random.sample(sorted(manifest.runs), len(manifest.runs)):
            path = self.folder / name
            try:
                left -= path.stat().st_size
                if left >= 0 and _checksum(path) != manifest.runs[name]:
                    logger.warning("%s is damaged. The ids of stored events are read from the lake again.", path)
                    return False
                np.load(path, mmap_mode="r")
            except (OSError, EOFError, ValueError):
                return False
        return True


def _write(path: Path, run: Keys) -> None:
    """Write a run to a new file.

    Raises:
        OSError: it could not be written whole. NumPy, given a file, says nothing of the last bytes on a full disk.
    """
    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), run)  # pyright: ignore[reportArgumentType]


def _checksum(path: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found = zlib.crc32(block, found)
    return found


def _is_small(run: Keys) -> bool:
    return run.shape[1] < MERGED_ROWS // 2


def _sorted(keys: Keys) -> Keys:
    return np.ascontiguousarray(keys[:, np.argsort(keys[HIGH], kind="stable")])


def _merge(runs: list[Keys]) -> Iterator[Keys]:
    """Fewer runs of the same rows, none above `MERGED_ROWS` unless it came so."""
    gathered: list[Keys] = []
    for run in sorted(runs, key=lambda run: run.shape[1]):
        if gathered and sum(part.shape[1] for part in gathered) + run.shape[1] > MERGED_ROWS:
            yield _sorted(np.concatenate(gathered, axis=1))
            gathered = []
        gathered.append(run)
    if gathered:
        yield _sorted(np.concatenate(gathered, axis=1))


def _probe(run: Keys, probe: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each key, sorted by its first half: whether it is in the run, and whether under the same position."""
    count = run.shape[1]
    found = np.zeros(probe.shape[1], bool)
    itself = np.zeros(probe.shape[1], bool)
    at = np.searchsorted(run[HIGH], probe[HIGH])
    alive = np.flatnonzero(at < count)
    # One step almost always; more only where first halves are equal and second halves differ.
    while len(alive):
        place = at[alive]
        alive = alive[run[HIGH][place] == probe[HIGH][alive]]
        place = at[alive]
        same = run[LOW][place] == probe[LOW][alive]
        hits, spots = alive[same], place[same]
        found[hits] = True
        itself[hits] = (run[PARTITION][spots] == probe[PARTITION][hits]) & (run[OFFSET][spots] == probe[OFFSET][hits])
        at[alive] += 1
        alive = alive[~same & (at[alive] < count)]
    return found, itself
