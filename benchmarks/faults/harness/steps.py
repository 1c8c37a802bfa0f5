"""The steps at which a process is killed or stopped: before and after everything that leaves a trace on the disk.

Steps are wrapped in the process that is to die, after it was forked. `PLACES[group]` lists them as `before NAME` and
`after NAME`; `within pwrite` is a line half written.
"""

import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update.snapshot import ExpireSnapshots

from recsys_data import durable
from recsys_data.features import materialize
from recsys_data.ingestion.batch import quarantine as held
from recsys_data.ingestion.batch import snapshot
from recsys_data.ingestion.batch.history import state as history_state
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.staging import Staged
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming import deduplication as deduplicate
from recsys_data.ingestion.streaming import stream_writer as writer
from recsys_data.ingestion.streaming.deduplication import DedupIndex
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log.embedded import writer as log_writer
from recsys_data.ingestion.streaming.log.embedded.writer import PartitionWriter
from recsys_data.serving.online import histories, updater
from recsys_data.serving.online_store.lmdb import LmdbRebuild, LmdbStore
from recsys_data.serving.online_store.long_keys import LongKeys
from recsys_data.storage import commit, partition
from recsys_data.storage import parquet as write
from recsys_data.storage.iceberg import file_io as durable_io
from recsys_data.storage.ledger import LEDGER
from recsys_data.storage.maintenance import compaction as maintenance
from recsys_data.storage.maintenance import orphans
from recsys_data.training import registry, train
from recsys_data.training.sets import build

STEPS: dict[str, list[tuple[Any, str]]] = {
    "log": [
        (PartitionWriter, "_take_up"),
        (PartitionWriter, "_open"),
        (PartitionWriter, "_write"),
        (log_writer, "sync"),
        (log_writer, "sync_folder"),
        (PartitionWriter, "_rotate"),
        (PartitionWriter, "append"),
    ],
    "consumer": [
        (writer, "build"),
        (writer, "write_days"),
        (write, "write_day"),
        (write, "sync_all"),
        (durable_io, "sync_all"),
        (writer, "write_intent"),
        (writer, "commit"),
        (commit, "swap"),
        (SqlCatalog, "create_table"),
        (SqlCatalog, "commit_table"),
        (writer, "expire_old_snapshots"),
        (ExpireSnapshots, "commit"),
        (writer, "remove_intent"),
        (DedupIndex, "persist"),
        (deduplicate, "write_atomically"),
    ],
    "maintenance": [
        (maintenance, "write_day"),
        (maintenance, "sync_all"),
        (maintenance, "expire_old_snapshots"),
        (maintenance, "remove_orphans"),
        (ExpireSnapshots, "commit"),
        (SqlCatalog, "commit_table"),
        (orphans, "_check"),
        (orphans, "_note"),
        (orphans, "_remove"),
        (Path, "unlink"),
    ],
    "hold": [
        (Staged, "validate"),
        (snapshot, "quarantine"),
        (held, "_write"),
        (held, "sync_all"),
        (held, "discard"),
        (Path, "replace"),
        (held, "sync_file"),
        (shutil, "rmtree"),
    ],
    "accept": [
        (snapshot, "publish"),
        (partition, "write_day"),
        (partition, "sync_all"),
        (SqlCatalog, "commit_table"),
        (snapshot, "discard"),
        (Path, "replace"),
        (shutil, "rmtree"),
        (history, "commit_state"),
    ],
    "features": [
        (materialize, "copy_rows"),
        (materialize, "compare_and_set"),
        (materialize, "expire_old_snapshots"),
        (commit, "swap"),
        (ExpireSnapshots, "commit"),
        (SqlCatalog, "create_table"),
        (SqlCatalog, "commit_table"),
    ],
    "training": [
        (build, "write_rows"),
        (build, "sync_all"),
        (build, "_publish"),
        (build, "_drop_old_files"),
        (train, "store_artefact"),
        (train, "register"),
        (registry, "compare_and_set"),
        (registry, "write_day"),
        (commit, "swap"),
        (SqlCatalog, "create_table"),
        (SqlCatalog, "commit_table"),
        (durable, "sync_file"),
        (Path, "replace"),
        (Path, "unlink"),
        (shutil, "rmtree"),
    ],
    "online": [
        (updater, "gather"),
        (updater, "encoded"),
        (histories, "values"),
        (LmdbStore, "commit"),
        (LmdbRebuild, "put"),
        (LmdbRebuild, "publish"),
        (LmdbRebuild, "discard"),
        (LongKeys, "packed"),
    ],
    "snapshot": [
        (Staged, "gather"),
        (Staged, "validate"),
        (partition, "write_day"),
        (partition, "sync_all"),
        (SqlCatalog, "create_table"),
        (SqlCatalog, "commit_table"),
        (snapshot, "publish"),
        (snapshot, "discard"),
        (history, "copy_rows"),
        (history, "commit_state"),
        (commit, "swap"),
        (history_state, "expire_old_snapshots"),
    ],
}


def name_of(owner: Any, name: str) -> str:
    """How a step is called in the table: the module or class, and the function.

    >>> name_of(DedupIndex, "persist")
    'DedupIndex.persist'
    """
    return f"{owner.__name__.rpartition('.')[2]}.{name}"


PLACES = {
    group: [f"{when} {name_of(*step)}" for step in steps for when in ("before", "after")]
    for group, steps in STEPS.items()
}
PLACES["log"].append("within pwrite")


@dataclass(frozen=True)
class Fault:
    """What happens to a process on the n-th passing of a place: the signal that it sends itself, or an error."""

    place: str
    passing: int = 1
    number: int = signal.SIGKILL
    error: type[BaseException] | None = None

    def __post_init__(self) -> None:
        # A place that is never passed would be waited for without end.
        if not any(self.place in places for places in PLACES.values()):
            raise ValueError(
                f"No process passes {self.place!r}; expected one of {sorted(set().union(*PLACES.values()))}."
            )


class Steps:
    """Wraps the steps of a group in this process, and counts how often each place is passed."""

    def __init__(self, group: str, fault: Fault | None = None) -> None:
        self.fault = fault
        self.passed: Counter[str] = Counter()
        self._counting = threading.Lock()
        for owner, name in STEPS[group]:
            setattr(owner, name, self._wrapped(name_of(owner, name), getattr(owner, name)))
        if fault and fault.place == "within pwrite":
            self._tear_writes()

    def save_at_exit(self, path: Path) -> None:
        """Write how often each place was passed to a file when this process ends."""
        end = os._exit

        def save_and_end(code: int) -> None:
            path.write_text(json.dumps(self.passed))
            end(code)

        os._exit = save_and_end  # type: ignore[assignment]

    def _wrapped(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._pass(f"before {name}")
            result = work(*args, **kwargs)
            self._pass(f"after {name}")
            return result

        return watched

    def _pass(self, place: str) -> bool:
        """Count; and if it is the fault's passing, send the signal."""
        with self._counting:
            self.passed[place] += 1
            due = self.fault is not None and (place, self.passed[place]) == (self.fault.place, self.fault.passing)
        if due and self.fault and self.fault.error:
            raise self.fault.error
        if due and self.fault:
            os.kill(os.getpid(), self.fault.number)
        return due

    def _tear_writes(self) -> None:
        """Write the first half of what is appended, and only then pass."""
        whole = os.pwrite

        def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
            half = whole(descriptor, data[: len(data) // 2 + 1], offset)
            self._pass("within pwrite")
            return half

        os.pwrite = pwrite


def tighten() -> None:
    """Small slices, many commits, runs of ids saved often and snapshots forgotten early: every step is met soon."""
    from datetime import timedelta

    consumer.consume = partial(consumer.consume, limits=ConsumerLimits(slice_bytes=16_000, commit_rows=60))
    commit.EXPIRE_EVERY = 3
    commit.SNAPSHOT_AGE = maintenance.SNAPSHOTS_KEPT = timedelta(0)
    maintenance.SMALL_FILES = 2
    deduplicate.MEMORY_ROWS = 100


def sabotage(protection: str | None) -> None:
    """Switch one protection off in this process: the harness has to find what comes of it."""
    if protection == "deduplication":
        import numpy as np

        every = lambda self, keys, decided=None: (np.ones(keys.shape[1], bool),) * 2  # noqa: E731
        _replace(DedupIndex, "filter_new", every)
    elif protection == "compare-and-set":
        _replace(writer, "commit", _commit_regardless)
    elif protection == "fsync":
        _replace(log_writer, "sync", lambda descriptor: None)
        for module in (durable_io, write):
            _replace(module, "sync_all", lambda paths: None)


def _replace(owner: Any, name: str, function: Any) -> None:
    """Replace a function that is there: what has been renamed would stay switched on."""
    getattr(owner, name)
    setattr(owner, name, function)


def _commit_regardless(table: Any, base: Any, ledger: Any, files: Any, shared: bool) -> Any:
    table.refresh()
    stored = msgspec.structs.replace(ledger, token=os.urandom(8).hex())
    commit.swap(table, commit.Change(added=files, properties={LEDGER: msgspec.json.encode(stored).decode()}))
    return ledger


__all__ = ["PLACES", "STEPS", "Fault", "Steps", "sabotage", "tighten"]
