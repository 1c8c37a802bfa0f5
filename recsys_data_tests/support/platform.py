"""A whole small platform in a folder, for tests: its log, its lake, and consumers of the one into the other."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from recsys_data.contracts import Contract
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.consumer import Until
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.ingestion.streaming.stream_writer import CommitResult, StreamWriter
from recsys_data.settings import Settings
from recsys_data.storage.intent import intent_location
from recsys_data.storage.ledger import Deletions, Ledger, read_deletions, read_ledger
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.decoding import validated

PRIMARIES = ("interactions", "identities")
# As many on any machine, because their sessions are shared by tests.
THREADS = 2
PLACE = ("log_partition", "log_offset", "ingested_at", "rejected_at")


def intent_file(lake: Lake, name: str) -> Path:
    """The file of an intent in a lake of this machine."""
    return Path(intent_location(lake.warehouse, name))


def view(event_id: str, day: int = 1, **members: Any) -> bytes:
    """A good view on a day of January 2026."""
    event = {"event_id": event_id, "type": "view", "user_id": "u1", "item_id": "i1"}
    event |= {"event_ts": f"2026-01-{day:02d}T12:00:00Z", "received_at": "2026-01-31T00:00:00Z"}
    return json.dumps(event | members).encode()


def identify(event_id: str, **members: Any) -> bytes:
    return view(event_id, type="identify", item_id=None, **members)


class Platform:
    """Log and lake in `folder`. Each of the `partitions` has a writer of its own."""

    def __init__(self, folder: Path, contracts: Mapping[str, Contract], partitions: int = 2, **given: Any) -> None:
        self.settings = msgspec.structs.replace(Settings(dir=str(folder), log_partitions=partitions), **given)
        self.contracts = contracts
        size = self.settings.segment_bytes
        self.writers = [
            EmbeddedLog(self.settings.log_dir, partitions=partitions, segment_bytes=size) for _ in range(partitions)
        ]
        self.log = self.writers[0]
        self.lake = self.open_lake()

    def open_lake(self) -> Lake:
        return open_lake(self.settings, self.contracts)

    def append(self, lines: Sequence[bytes], writer: int = 0) -> None:
        """Append to the partition of this writer."""
        self.writers[writer].append(lines)

    def consume(self, until: Until | None = None, **limits: Any) -> list[CommitResult]:
        """A consumer by a process of its own, until nothing waits."""
        given = ConsumerLimits(**{"threads": THREADS} | limits)
        return list(consumer.consume(self.log, self.open_lake(), self.settings, until or Until(), given))

    def feed(self, writer: StreamWriter, decoder: Decoder) -> None:
        """Add what waits for this writer, as a consumer does; it commits nothing."""
        for partition in self.log.partitions():
            lines = self.log.read(partition, writer.position(partition), 1 << 20)
            if len(lines):
                writer.add(validated(decoder, lines))

    def ledger(self, name: str = "interactions") -> Ledger:
        return read_ledger(self.lake.table(name))

    def removed(self, name: str) -> Deletions:
        return read_deletions(self.lake.table(name))

    def rows(self, name: str = "interactions") -> list[dict[str, Any]]:
        return self.lake.table(name).scan().to_arrow().to_pylist()

    def ids(self, name: str = "interactions") -> list[str]:
        return sorted(row["event_id"] for row in self.rows(name))

    def content(self) -> dict[str, list[str]]:
        """All rows of all stream tables but for where they came from and when they were stored."""
        return {
            name: sorted(str({key: row[key] for key in row if key not in PLACE}) for row in self.rows(name))
            for name, contract in self.contracts.items()
            if contract.is_stream
        }

    def counts(self) -> tuple[int, int, int, int]:
        """Lines read, accepted, dropped as duplicates and rejected, on which all ledgers agree."""
        ledgers = [self.ledger(name) for name, contract in self.contracts.items() if contract.is_stream]
        found = {(one.read, one.accepted, one.duplicates, one.dead_letters, one.redacted) for one in ledgers}
        assert len(found) == 1, f"the ledgers differ: {found}"
        return found.pop()[:4]

    def assert_whole(self) -> None:
        """The log was read to its end, every line has one outcome, and every event is stored once."""
        ends = {partition: end for partition, end in self.log.end_offsets().items() if end}
        for name, contract in self.contracts.items():
            if contract.is_stream:
                ledger = self.ledger(name)
                rows = self.rows(name)
                assert ledger.positions == ends, name
                assert ledger.balanced, name
                assert ledger.rows == len(rows) + self.removed(name).rows, name
                if contract.is_fed_by_events:
                    assert once(row["event_id"] for row in rows), name
                assert once((row["log_partition"], row["log_offset"]) for row in rows), name
        read, accepted, _, dead = self.counts()
        assert read == sum(self.log.count(partition, 0) for partition in ends)
        primary_ids = [event_id for name in PRIMARIES for event_id in self.ids(name)]
        assert once(primary_ids)
        rejected = len(self.rows("dead_letters")) + self.removed("dead_letters").rows
        assert (len(primary_ids), rejected) == (accepted, dead)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def once(values: Iterable[Any]) -> bool:
    return all(count == 1 for count in Counter(values).values())
