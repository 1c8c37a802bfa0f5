"""Which event ids are stored already, and under which log position: 16 bytes of MD5 per id, sorted.

Data flow: the lake's primary tables -> sorted runs (files below `DIR/ingest/seen`, memory-mapped) + what this process
added since -> `DedupIndex.filter_new`. It holds exactly the ids that primary tables hold. The files are a cache: what
they lack is read from the lake when they are opened. They name the commit that they belong to, and are thrown away when
this lake never made that commit (another lake, a restored backup), when rows have expired since, or when they are
damaged: an id that is not found again would be stored twice, one that is found wrongly would be lost. 16 bytes
distinguish more ids than can ever be stored; a deliberate collision costs its author one event.
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
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from recsys_data.durable import sync_file, write_atomically
from recsys_data.leases import file_lock
from recsys_data.storage.integrity import corrupt_data
from recsys_data.storage.query import data_files, relation

if TYPE_CHECKING:
    from pyiceberg.table import Table

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.uint64]  # shape (4, n): MD5 high, MD5 low, log partition, log offset; sorted by the first

HIGH, LOW, PARTITION, OFFSET = range(4)
MANIFEST = "manifest.json"
# Runs are merged in memory; this bounds what a merge takes (32 bytes a row, twice).
MERGED_ROWS = 4_000_000
MEMORY_ROWS = 1_000_000
FANOUT = 6
# Keys in one piece of those read from the lake.
STORED_KEYS_ROWS = 500_000
# What one opening reads to see whether it is damaged, a third of a second from memory; of more, some runs each time.
CHECKED_BYTES = 1024**3
BLOCK = 1 << 20
# Two consumers share these files for a moment only: when the lock between them is gone, or works on two machines.
WAIT_SECONDS = 10.0


def key_of(event_id: str) -> tuple[str, str, str]:
    """SQL of an event id's key as a whole, and of its halves in terms of a column `key`."""
    return f"md5_number(coalesce({event_id}, ''))", "(key >> 64)::UBIGINT", f"(key & {2**64 - 1})::UBIGINT"


class Manifest(msgspec.Struct):
    """What the run files cover: every row of the lake `identity` before `positions`, as of one commit.

    Attributes:
        commit: token of that commit of the main table.
        expired: how many rows had expired from the primary tables.
        runs: by file, its CRC-32.
    """

    identity: str = ""
    positions: dict[int, int] = {}
    runs: dict[str, int] = {}
    commit: str = ""
    expired: int = 0


class LakeState(msgspec.Struct, frozen=True):
    """What an index must belong to.

    Attributes:
        identity: unique for the primary tables.
        commits: tokens of commits of the main table that an index may name: its newest one and ancestors of that.
        expired: how many rows have expired from the primary tables.
    """

    identity: str
    commits: frozenset[str] = frozenset()
    expired: int = 0


class DedupIndex:
    """The ids of all stored events. Not thread-safe."""

    def __init__(self, folder: Path, lake: LakeState) -> None:
        """Open the index of a lake; what it covers is trusted only if it belongs to this state of the lake."""
        self.folder = folder
        self._lake = lake
        self._manifest = Manifest(lake.identity, expired=lake.expired)
        self._stored: list[Keys] = []
        self._recent: list[Keys] = []
        with self._alone() as alone:
            if alone:
                self._open()

    @property
    def covered(self) -> Mapping[int, int]:
        """Rows from these positions on must be given to `add` before `filter_new` can be trusted."""
        return self._manifest.positions

    def add(self, keys: Keys) -> None:
        """Remember ids: `keys` of shape (4, n), in any order."""
        if keys.shape[1]:
            self._recent.append(_sorted(keys))
        if len(self._recent) > FANOUT:
            self._recent = list(_merge(self._recent))

    def missing(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of these ids are not stored; `keys` of shape (4, n), the result of shape (n,)."""
        order = np.argsort(keys[HIGH], kind="stable")
        probe = keys[:, order]
        absent = np.ones(len(order), bool)
        for run in (*self._stored, *self._recent):
            absent &= ~_probe(run, probe)[0]
        result = np.empty(len(order), bool)
        result[order] = absent
        return result

    def filter_new(
        self, keys: Keys, decided: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which of these events are stored, or to be stored; the others are duplicates.

        An id that is stored under the very same position is this event, met again, and is kept. Of several new events
        with one id the first is kept, in the order given. Events that were `decided` before are never new.

        Returns:
            Which are kept, and which of these the index does not have yet; both of shape (n,).
        """
        count = keys.shape[1]
        decided = np.zeros(count, bool) if decided is None else decided
        order = np.lexsort((np.arange(count), decided, keys[LOW], keys[HIGH]))
        probe = keys[:, order]
        new = np.ones(count, bool)
        new[1:] = (probe[HIGH, 1:] != probe[HIGH, :-1]) | (probe[LOW, 1:] != probe[LOW, :-1])
        new &= ~decided[order]
        met = np.zeros(count, bool)
        for run in (*self._stored, *self._recent):
            found, itself = _probe(run, probe)
            new &= ~found
            met |= itself
        in_given_order = np.empty(count, np.int64)
        in_given_order[order] = np.arange(count)
        return (new | met)[in_given_order], new[in_given_order]

    def persist(self, positions: Mapping[int, int], commit: str, force: bool = False) -> bool:
        """Write what was added since to the cache, if it is much.

        Args:
            positions: the lake holds all rows before these.
            commit: token of the main table's commit that reached them.
            force: also if it is little.

        Returns:
            Whether it was written.
        """
        rows = sum(run.shape[1] for run in self._recent)
        if rows == 0 or (rows < MEMORY_ROWS and not force):
            return False
        with self._alone() as alone:
            # Another consumer has saved or thrown away what this one knows: one of them is about to end, and the
            # files are the other's.
            if not alone or self._read() != self._manifest:
                return False
            self._save(positions, commit)
            return True

    def _save(self, positions: Mapping[int, int], commit: str) -> None:
        stored = zip(self._manifest.runs.items(), self._stored, strict=True)
        runs = dict(named for named, run in stored if not _is_small(run))
        for run in _merge([*self._small_stored(), *self._recent]):
            name = f"{uuid.uuid4().hex}.npy"
            _write(self.folder / name, run)
            sync_file(self.folder / name)
            runs[name] = _checksum(self.folder / name)
        old = self._manifest.runs.keys() - runs.keys()
        self._manifest = Manifest(self._lake.identity, dict(positions), runs, commit, self._lake.expired)
        write_atomically(self.folder / MANIFEST, msgspec.json.encode(self._manifest))
        self._stored = self._load(self._manifest)
        self._recent = []
        for name in old:
            (self.folder / name).unlink(missing_ok=True)

    def _small_stored(self) -> list[Keys]:
        return [np.asarray(run) for run in self._stored if _is_small(run)]

    def _alone(self) -> AbstractContextManager[bool]:
        # Beside the folder, because the folder may be deleted.
        return file_lock(self.folder.with_name(f"{self.folder.name}.lock"), WAIT_SECONDS)

    def _read(self) -> Manifest:
        """The manifest as it was saved; an empty one of this lake if there is none."""
        try:
            return msgspec.json.decode((self.folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            return Manifest(self._lake.identity, expired=self._lake.expired)

    def _load(self, manifest: Manifest) -> list[Keys]:
        return [np.load(self.folder / name, mmap_mode="r") for name in manifest.runs]

    def _open(self) -> None:
        """Take the cache as it was saved; begin anew where there is none, it is not whole, or not of this lake."""
        manifest = self._read()
        if self._belongs(manifest) and self._is_whole(manifest):
            self._manifest, self._stored = manifest, self._load(manifest)
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in {path.name for path in self.folder.glob("*.npy")} - manifest.runs.keys():
            (self.folder / leftover).unlink()

    def _belongs(self, manifest: Manifest) -> bool:
        """Whether the lake has made the commit that the files belong to, and holds all rows of that commit."""
        if manifest.identity != self._lake.identity or manifest.expired != self._lake.expired:
            return False
        if manifest.runs and manifest.commit not in self._lake.commits:
            logger.warning(
                "The deduplication index in %s belongs to a commit that this lake does not know: the lake was "
                "restored, or another machine has written to it. The index is built again from the lake.",
                self.folder,
            )
            return False
        return True

    def _is_whole(self, manifest: Manifest) -> bool:
        """Whether the run files are there and, of those that are checked, each is as it was written."""
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


def read_index(folder: Path) -> tuple[Manifest, list[Keys]] | None:
    """The index as it was saved last, memory-mapped; None if there is none or it is being replaced."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return manifest, [np.load(folder / name, mmap_mode="r") for name in manifest.runs]
    except (OSError, EOFError, ValueError, msgspec.DecodeError):
        return None


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


def stored_keys(table: "Table", covered: Mapping[int, int]) -> Iterator[npt.NDArray[np.uint64]]:
    """Deduplication keys of the rows at or beyond the covered positions (of every partition), in bounded pieces.

    Raises:
        Permanent: a data file is damaged.
    """
    import duckdb
    from pyiceberg.expressions import GreaterThanOrEqual

    from recsys_data.contracts.rules import session

    key, high, low = key_of("event_id")
    lowest = min(covered.values(), default=0)
    files = data_files(table, GreaterThanOrEqual("log_offset", lowest))  # pyright: ignore[reportCallIssue]
    if not files:
        return
    beyond = " OR ".join(f"(log_partition = {p} AND log_offset < {at})" for p, at in covered.items()) or "false"
    try:
        with session() as connection:
            reader = connection.sql(
                f"""SELECT {high}, {low}, log_partition::UBIGINT, log_offset::UBIGINT
                    FROM (SELECT *, {key} AS key FROM ({relation(table, files)}) WHERE NOT ({beyond}))"""
            ).to_arrow_reader(batch_size=STORED_KEYS_ROWS)
            for piece in reader:
                yield np.stack([column.to_numpy(zero_copy_only=False) for column in piece.columns])
    except duckdb.Error as error:
        raise corrupt_data(table, files, error) from error
