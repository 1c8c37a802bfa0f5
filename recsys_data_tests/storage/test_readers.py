"""Readers beside a consumer at work: each read of a table shows whole micro-batches."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.storage.ledger import read_ledger
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake, open_lake

NAMES = ["interactions", "contexts", "dead_letters"]


class Consuming(threading.Thread):
    """A consumer of what waits; knows which numbers of rows a table has between two commits."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.totals: dict[str, set[int]] = {name: {0} for name in NAMES}
        self.failed: BaseException | None = None

    def run(self) -> None:
        rows: dict[str, int] = defaultdict(int)
        log = open_log(self.settings)
        try:
            lake = open_lake(self.settings, load_contracts())
            # Small slices, each committed at once: many commits for the readers to meet.
            limits = ConsumerLimits(slice_bytes=30_000, commit_rows=1)
            for flushed in consumer.consume(log, lake, self.settings, consumer.Until(), limits):
                for name in NAMES:
                    rows[name] += sum(flushed.rows[name].values())
                    self.totals[name].add(rows[name])
        except BaseException as error:
            self.failed = error
        finally:
            log.close()


@pytest.fixture
def consuming(tmp_path: Path) -> Iterator[Consuming]:
    settings = Settings(dir=str(tmp_path / "state"))
    log = open_log(settings)
    for batch in simulate(Plan(events=600, seed=5)):
        log.append(batch.lines)
    log.close()
    lake = open_lake(settings, load_contracts())
    for name in NAMES:
        lake.table(name)
    thread = Consuming(settings)
    yield thread
    thread.join()


def counted(lake: Lake) -> dict[str, int]:
    """Rows of each table by the views of one session."""
    with connect(lake, NAMES) as connection:
        return {name: connection.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in NAMES}


def scanned(lake: Lake, name: str) -> int:
    """Rows of a table by PyIceberg, which are those of the ledger of the same commit."""
    table = lake.table(name)
    ledger = read_ledger(table)
    found = len(table.scan(selected_fields=("log_offset",)).to_arrow())
    assert found == ledger.rows, f"{name}: the rows are not those of the ledger of the same commit"
    return found


def test_readers_see_whole_micro_batches_only(consuming: Consuming) -> None:
    lake = open_lake(consuming.settings, load_contracts())
    seen: dict[str, set[int]] = defaultdict(set)
    consuming.start()
    over = False
    while not over:
        over = not consuming.is_alive()
        for name, rows in counted(lake).items():
            seen[name] |= {rows, scanned(lake, name)}
    assert consuming.failed is None
    for name in NAMES:
        assert seen[name] <= consuming.totals[name], f"{name} was seen with part of a commit"
        assert max(seen[name]) == max(consuming.totals[name])
    assert len(consuming.totals["interactions"]) > 5
    assert len(seen["interactions"]) > 2, "no reader met the consumer at work"


def test_readers_of_the_past_see_whole_micro_batches_only(consuming: Consuming) -> None:
    consuming.start()
    consuming.join()
    assert consuming.failed is None
    lake = open_lake(consuming.settings, load_contracts())
    table = lake.table("interactions")
    moments = [datetime.fromtimestamp(one.timestamp_ms / 1000, UTC) for one in table.metadata.snapshots]
    found = []
    for moment in moments[:: max(1, len(moments) // 10)]:
        with connect(lake, ["interactions"], as_of=moment) as connection:
            found.append(connection.sql("SELECT count(*) FROM interactions").fetchall()[0][0])
    assert set(found) <= consuming.totals["interactions"]
    assert found == sorted(found) and len(set(found)) > 3
