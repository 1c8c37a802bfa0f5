"""Which event ids are stored already, and under which log position: 16 bytes of MD5 per id, sorted.

Data flow: the lake's home tables -> sorted runs (files below `DIR/ingest/seen`, memory-mapped) + what this
process added since -> `SeenIds.keep`. The files are a cache: whatever they lack is read from the lake when
they are opened, and they are thrown away when they do not belong to it. 16 bytes tell more ids apart than
can ever be stored; a deliberate collision costs its author one event.
"""

import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from recsys_data.lake.files import sync_file, write_atomically

Keys = npt.NDArray[np.uint64]  # shape (4, n): MD5 high, MD5 low, log partition, log offset; sorted by the first

HIGH, LOW, PARTITION, OFFSET = range(4)
MANIFEST = "manifest.json"
# Runs are merged in memory; this bounds what a merge takes (32 bytes a row, twice).
MERGED_ROWS = 4_000_000
MEMORY_ROWS = 1_000_000
FANOUT = 6


def key_of(event_id: str) -> tuple[str, str, str]:
    """SQL of an event id's key as a whole, and of its halves in terms of a column `key`."""
    return f"md5_number(coalesce({event_id}, ''))", "(key >> 64)::UBIGINT", f"(key & {2**64 - 1})::UBIGINT"


class Manifest(msgspec.Struct):
    """What the run files cover: every row of the lake `identity` before `positions`."""

    identity: str = ""
    positions: dict[int, int] = {}
    runs: list[str] = []


class SeenIds:
    """The ids of all stored events. Not thread-safe."""

    def __init__(self, folder: Path, identity: str, positions: Mapping[int, int]) -> None:
        """Open the cache of the lake `identity` (unique per table), whose rows end at `positions`."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._manifest, self._stored = self._open(identity, positions)
        self._recent: list[Keys] = []

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
        runs = list(_merge([*self._small_stored(), *self._recent]))
        names = [name for name, run in zip(self._manifest.runs, self._stored, strict=True) if not _is_small(run)]
        for run in runs:
            name = f"{uuid.uuid4().hex}.npy"
            np.save(self.folder / name, run)
            sync_file(self.folder / name)
            names.append(name)
        old = set(self._manifest.runs) - set(names)
        self._manifest = Manifest(self._manifest.identity, dict(positions), names)
        write_atomically(self.folder / MANIFEST, msgspec.json.encode(self._manifest))
        self._stored = [np.load(self.folder / name, mmap_mode="r") for name in names]
        self._recent = []
        for name in old:
            (self.folder / name).unlink()

    def _small_stored(self) -> list[Keys]:
        return [np.asarray(run) for run in self._stored if _is_small(run)]

    def _open(self, identity: str, positions: Mapping[int, int]) -> tuple[Manifest, list[Keys]]:
        """The cache as it was saved; an empty one where it is none, not whole, or not of this lake."""
        try:
            manifest = msgspec.json.decode((self.folder / MANIFEST).read_bytes(), type=Manifest)
            runs = [np.load(self.folder / name, mmap_mode="r") for name in manifest.runs]
        except (OSError, EOFError, ValueError, msgspec.DecodeError):
            manifest, runs = Manifest(), []
        ahead = any(at > positions.get(partition, 0) for partition, at in manifest.positions.items())
        if manifest.identity != identity or ahead:
            shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            return Manifest(identity), []
        for leftover in {path.name for path in self.folder.glob("*.npy")} - set(manifest.runs):
            (self.folder / leftover).unlink()
        return manifest, runs


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
