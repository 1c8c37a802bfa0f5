"""The only place of the simulation that knows names inside of the product: what it calls, and what it replaces.

Everything else of it speaks of steps, folders and rows. What is replaced: pools of threads (work is done in line, so
that a seed means one order of operations), sessions (made once for each set of contracts, because that takes long), and
sizes (small, so that a few events make several slices, segments and commits).
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cachetools import Cache
from pyiceberg.manifest import clear_manifest_cache
from pyiceberg.utils.concurrent import ExecutorFactory

from recsys_data import durable as files
from recsys_data.ingestion.batch import retention, snapshot
from recsys_data.ingestion.batch.history.update import refresh_history as refresh
from recsys_data.ingestion.streaming import consumer, replay
from recsys_data.ingestion.streaming import deduplication as deduplicate
from recsys_data.ingestion.streaming import stream_writer as writer
from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.embedded import writer as log_writer
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.monitoring.status import read_status
from recsys_data.operations.backup import backup, restore
from recsys_data.settings import Settings
from recsys_data.storage import commit
from recsys_data.storage import parquet as write
from recsys_data.storage.iceberg import file_io as durable_io
from recsys_data.storage.maintenance import compaction as maintenance
from recsys_data.storage.tables import Lake, open_lake

OUTBOX_FOLDER = "replay"
SABOTAGES = ("compare-and-set", "deduplication", "fsync")


class Sizes(NamedTuple):
    """How much a consumer takes at once, and what it keeps.

    Attributes:
        slice_bytes: of the log that are read at once.
        commit_rows: lines that wait before they are committed.
        index_rows: ids that are added to the index before it is saved.
        snapshots: of a table, before old ones expire.
    """

    slice_bytes: int = 600
    commit_rows: int = 12
    index_rows: int = 8
    snapshots: int = 3


def consume(log: EventLog, lake: Lake, settings: Settings) -> None:
    """Ingest until nothing waits. Without the lock, for two of them are to be tried, too."""
    for _ in consumer.consume(log, lake, settings, consumer.Until(), _limits):
        pass


def replay_dead_letters(log: EventLog, lake: Lake, settings: Settings) -> None:
    replay.replay(lake, log, settings, DeadLetterFilter())


def discard_dead_letters(lake: Lake, settings: Settings) -> None:
    replay.discard(lake, settings, DeadLetterFilter())


def outbox_lines(lake: Lake) -> list[bytes]:
    return list(replay.outbox_lines(lake))


def take_snapshot(lake: Lake, settings: Settings, name: str, day: date) -> None:
    snapshot.take_snapshot(lake, settings, name, day, accept=True)


def refresh_history(lake: Lake, settings: Settings, name: str) -> None:
    refresh(lake, name, settings.data_dir / "ingest" / "staging", 200_000_000)


def retire(lake: Lake, now: datetime) -> None:
    for name in lake.contracts:
        retention.expire(lake, name, now)


def maintain(lake: Lake, name: str) -> None:
    if lake.exists(name):
        maintenance.maintain_table(lake, name)


def back_up(settings: Settings, folder: Path) -> None:
    backup.back_up(settings, folder)


def restore_backup(settings: Settings, folder: Path) -> None:
    restore.restore(settings, folder)


def index_folder(settings: Settings) -> Path:
    """Where the deduplication index lies."""
    return settings.data_dir / "ingest" / "seen"


def segments(settings: Settings, partition: int) -> list[Path]:
    return sorted((settings.log_dir / str(partition)).glob("*.ndjson"))


def first_position(segment: Path) -> int:
    return int(segment.stem)


def consumed(log: EventLog, lake: Lake) -> dict[int, int]:
    """Where every table has come to in each partition."""
    return consumer.positions_of(lake, log.begin_offsets())


def verdict(log: EventLog, lake: Lake, settings: Settings) -> bool:
    """Whether the product itself finds nothing missing and nothing counted twice."""
    return read_status(log, lake, settings).ledger.balanced


def forget() -> None:
    """Empty what modules remember of files, as in a new process."""
    clear_manifest_cache()
    files._on_disk.clear()
    for name, module in list(sys.modules.items()):
        if name.startswith("recsys_data."):
            for member in list(vars(module).values()):
                if isinstance(remembered := getattr(member, "cache", None), Cache):
                    remembered.clear()


def create_tables(lake: Lake) -> None:
    for name in lake.contracts:
        lake.table(name)


@contextmanager
def prepared(sizes: Sizes, sabotage: str | None = None) -> Iterator[None]:
    """The product with everything in line and small, and with one protection switched off."""
    replaced: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    put(ExecutorFactory, "get_or_create", staticmethod(InLine))
    for module in [one for name, one in sys.modules.items() if name.startswith("recsys_data.")]:
        if getattr(module, "ThreadPoolExecutor", None) is not None:
            put(module, "ThreadPoolExecutor", InLine)
        if getattr(module, "EventSession", None) is EventSession:
            put(module, "EventSession", _session)
    limits = ConsumerLimits(threads=2, slice_bytes=sizes.slice_bytes, commit_rows=sizes.commit_rows)
    put(sys.modules[__name__], "_limits", limits)
    put(commit, "EXPIRE_EVERY", sizes.snapshots)
    put(commit, "SNAPSHOT_AGE", timedelta(0))
    put(maintenance, "SNAPSHOTS_KEPT", timedelta(0))
    put(maintenance, "SMALL_FILES", 2)
    put(deduplicate, "MEMORY_ROWS", sizes.index_rows)
    for owner, name, value in _switched_off(sabotage):
        put(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in reversed(replaced):
            setattr(owner, name, value)


def _switched_off(sabotage: str | None) -> Iterable[tuple[Any, str, Any]]:
    if sabotage == "deduplication":
        import numpy as np

        return [
            (deduplicate.DedupIndex, "filter_new", lambda self, keys, decided=None: (np.ones(keys.shape[1], bool),) * 2)
        ]
    if sabotage == "compare-and-set":
        return [(writer, "commit", _commit_regardless)]
    if sabotage == "fsync":
        owners: list[tuple[Any, str]] = [(log_writer, "sync"), (durable_io, "sync_all"), (write, "sync_all")]
        return [(owner, name, lambda *_: None) for owner, name in owners]
    return []


def _commit_regardless(table: Any, base: Any, ledger: Any, files: Any, shared: bool) -> Any:
    import msgspec

    from recsys_data.storage.ledger import LEDGER

    table.refresh()
    stored = msgspec.structs.replace(ledger, token=os.urandom(8).hex())
    commit.swap(table, commit.Change(added=files, properties={LEDGER: msgspec.json.encode(stored).decode()}))
    return ledger


_limits = ConsumerLimits()
_sessions: dict[object, EventSession] = {}


def _session(plan: EventSchema, first_day: date) -> EventSession:
    key = (*map(id, plan.contracts), first_day)
    if key not in _sessions:
        _sessions[key] = EventSession(plan, first_day)
    return _sessions[key]


class InLine:
    """An executor that does everything at once, where it is asked for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "InLine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any, **named: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **named))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, work: Callable[..., Any], *items: Iterable[Any], **_: Any) -> Iterator[Any]:
        return iter([work(*each) for each in zip(*items, strict=False)])

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


def close_lake(lake: Lake) -> None:
    """Let go of the catalog's file."""
    with suppress(Exception):
        lake.catalog.close()


__all__ = ["EventLog", "Lake", "Settings", "Sizes", "open_lake", "open_log"]
