"""What a soak observes, written down as it goes: `processes.csv`, `commits.csv`, `storage.csv`.

Data flow: processes, ledgers and snapshots of the tables, folders -> `Samples.take`, every few seconds.
Freshness is read from the ledger, where each commit leaves the quantiles of receipt -> queryable, and now and then
from the rows themselves: the time of a snapshot less the receipt of the rows which it added.
"""

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.soak.processes import Platform
from recsys_data.contracts import load_contracts
from recsys_data.durable import local_path
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.ingestion.streaming.positions import main_dataset
from recsys_data.settings import Settings
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.tables import open_lake

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

STORAGE_EVERY = 6
PROCESSES = ("seconds", "role", "pid", "rss_mb")
COMMITS = ("seconds", "what", "events", *(f"q{n:02d}_s" for n in range(5, 100, 10)))
STORAGE = (
    "seconds", "lag_events", "lag_bytes", "live_files", "live_bytes", "snapshots", "lake_files", "lake_bytes",
    "log_bytes", "dagster_files", "dagster_bytes", "seen_bytes",
)  # fmt: skip


class Samples:
    """Takes samples of a platform and appends them to files in `folder`."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.settings = Settings(dir=platform.environment["RECSYS_DATA_DIR"])
        self.platform = platform
        self.folder = folder
        self.begun = time.time()
        self.number = 0
        self._lake = open_lake(self.settings, load_contracts())
        self._log = open_log(self.settings)
        self._reported = 0.0
        self._spread_until = 0
        for name, head in (("processes", PROCESSES), ("commits", COMMITS), ("storage", STORAGE)):
            self._write(name, [head])

    def take(self) -> None:
        """One sample; the folders, which take longer to look through, are looked at in every sixth."""
        now = round(time.time() - self.begun, 1)
        self._write("processes", [(now, *one) for one in self.platform.memory()])
        names = [name for name, contract in self._lake.contracts.items() if contract.is_stream]
        if all(self._lake.exists(name) for name in names):
            tables = {name: self._lake.table(name).refresh() for name in names}
            main = tables[main_dataset(self._lake.contracts)]
            self._write("commits", [*self._latencies(main), *self._spreads(tables), *self._looked_at(main)])
            if self.number % STORAGE_EVERY == 0:
                self._write("storage", [(now, *self._storage(list(tables.values())))])
        self.number += 1

    def _latencies(self, main: "Table") -> list[tuple[Any, ...]]:
        """What the ledger tells of the commits since the last sample."""
        new = [one for one in read_ledger(main).latencies if one.committed_at > self._reported]
        self._reported = max((one.committed_at for one in new), default=self._reported)
        return [(round(one.committed_at - self.begun, 3), "ledger", one.events, *one.deciles) for one in new]

    def _spreads(self, tables: dict[str, "Table"]) -> list[tuple[Any, ...]]:
        """Seconds from the first to the last table of each flush: all of its commits but the first."""
        times = {name: np.array([s.timestamp_ms for s in table.snapshots()]) for name, table in tables.items()}
        if not all(len(one) for one in times.values()):
            return []
        found, firsts = [], min(times.values(), key=lambda one: one[-1])
        main = times[main_dataset(self._lake.contracts)]
        for at in main[main > self._spread_until]:
            before = firsts[firsts <= at]
            if len(before):
                spread = float(at - before[-1]) / 1000
                found.append((round(at / 1000 - self.begun, 3), "tables", "", *[round(spread, 3)] * 10))
        self._spread_until = int(main[-1])
        return found

    def _looked_at(self, main: "Table") -> list[tuple[Any, ...]]:
        """Receipt -> snapshot of the rows that the newest snapshot added, from its files."""
        snapshot = main.current_snapshot()
        received = received_in(main, snapshot) if snapshot else np.zeros(0)
        if snapshot is None or not len(received):
            return []
        seconds = snapshot.timestamp_ms / 1000 - received
        at = round(snapshot.timestamp_ms / 1000 - self.begun, 3)
        return [(at, "rows", len(received), *np.quantile(seconds, np.arange(0.05, 1, 0.1)).round(3))]

    def _storage(self, tables: Sequence["Table"]) -> tuple[Any, ...]:
        lag = lag_of(self._log, self._lake)
        live_files = live_bytes = snapshots = 0
        for table in tables:
            current = table.current_snapshot()
            snapshots += len(table.metadata.snapshots)
            if current and current.summary:
                live_files += int(current.summary["total-data-files"] or 0)
                live_bytes += int(current.summary["total-files-size"] or 0)
        folder = self.settings.data_dir
        seen = list((folder / "ingest").iterdir())
        return (
            lag.events, lag.bytes, live_files, live_bytes, snapshots, *size_of(self.settings.lake_dir),
            size_of(self.settings.log_dir)[1], *size_of(folder / "dagster"), sum(size_of(one)[1] for one in seen),
        )  # fmt: skip

    def _write(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        with (self.folder / f"{name}.csv").open("a", newline="") as file:
            csv.writer(file).writerows(rows)


def received_in(table: "Table", snapshot: "Snapshot") -> np.ndarray:
    """Receipt (seconds since 1970) of the rows which a snapshot added; none for what maintenance wrote anew."""
    operation = snapshot.summary.operation.value if snapshot.summary else ""
    found = []
    for manifest in snapshot.manifests(table.io) if operation == "append" else ():
        if manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(table.io):
                # A manifest that was merged names the files of earlier commits too.
                if entry.snapshot_id != snapshot.snapshot_id:
                    continue
                path = local_path(entry.data_file.file_path)
                column = pq.read_table(path, columns=["received_at"]).column(0).drop_null() if path else []
                found.append(np.asarray(column.to_numpy(), "datetime64[us]").astype(np.int64) / 1e6)
    return np.concatenate(found) if found else np.zeros(0)


def size_of(path: Path) -> tuple[int, int]:
    """Files below a folder, or one file, and their bytes; what disappears meanwhile is left out."""
    if path.is_file():
        return 1, path.stat().st_size
    files = size = 0
    waiting = [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files, size = files + 1, size + entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return files, size
