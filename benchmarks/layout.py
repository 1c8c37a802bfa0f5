"""Many consumers against one catalog: where does it end? `python -m benchmarks.layout --catalog URL --warehouse URL`.

Each consumer is a process that owns a log partition and makes the commits of a real one, a second apart: a data file
and a new ledger in each stream table, one table after the other, on top of what the others have committed. Reading,
decoding and deduplication are left out, because they are the consumer's own and scale with machines; all that
consumers share is here. Prints, for each number of consumers, how many rounds a second they made of those that were
due, how long a round took, and how often a commit had to be made again because another came first. At the end every
ledger must have every round.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.soak.report import print_table
from recsys_data.contracts import load_contracts
from recsys_data.contracts.types import arrow_schema
from recsys_data.ingestion.streaming.positions import first_dataset, main_dataset
from recsys_data.settings import Settings
from recsys_data.storage import commit as commits
from recsys_data.storage.ledger import Ledger, Outcomes, read_ledger
from recsys_data.storage.parquet import Selection, write_days
from recsys_data.storage.tables import Lake, open_lake

LINES = 100
HEAD = ("consumers", "due/s", "made/s", "round p50 s", "p95 s", "attempts a commit", "CPU ms a round")


class Consumer:
    """What a consumer does to the lake."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self.lake = open_lake(settings, load_contracts())
        self.partition = partition
        contracts = {name: one for name, one in self.lake.contracts.items() if one.is_stream}
        main = main_dataset(self.lake.contracts)
        first = first_dataset(contracts, main)
        self.order = sorted(contracts, key=lambda name: (name == main, name != first))
        self.attempts = 0
        swap = commits.swap

        def counted(*arguments: Any) -> None:
            self.attempts += 1
            swap(*arguments)

        commits.swap = counted

    def round(self) -> None:
        """One commit to each table."""
        name = uuid.uuid4().hex
        for dataset in self.order:
            table = self.lake.table(dataset)
            base = read_ledger(table)
            rows = _rows(self.lake, dataset, self.partition)
            files = write_days(table, [Selection.all(rows)])
            commits.commit(table, base, _advanced(base, self.partition, name, len(rows)), files, shared=True)
            commits.expire_old_snapshots(table)


def _rows(lake: Lake, dataset: str, partition: int) -> pa.Table:
    contract = lake.contracts[dataset]
    now = np.full(LINES, np.datetime64(time.time_ns() // 1000, "us"))
    given = {
        contract.event_time.name: pa.array(now, pa.timestamp("us", "UTC")),
        "log_partition": pa.array(np.full(LINES, partition)),
    }
    schema = arrow_schema(contract)
    return pa.table(
        [
            given[field.name].cast(field.type) if field.name in given else pa.nulls(LINES, field.type)
            for field in schema
        ],
        names=schema.names,
    )


def _advanced(base: Ledger, partition: int, name: str, rows: int) -> Ledger:
    own = base.partitions.get(partition, Outcomes(0))
    counted = msgspec.structs.replace(own, read=own.read + LINES, accepted=own.accepted + LINES)
    return msgspec.structs.replace(
        base,
        positions={**base.positions, partition: base.positions.get(partition, 0) + LINES},
        partitions={**base.partitions, partition: counted},
        read=base.read + LINES,
        accepted=base.accepted + LINES,
        rows=base.rows + rows,
        intent=name,
        intents={**base.intents, partition: name},
        token=name,
    )


def work(settings: Settings, partition: int, begin: float, seconds: float, pace: float, found: Any) -> None:
    """One consumer, until its time is over; puts how long its rounds took, its attempts and its CPU seconds."""
    consumer = Consumer(settings, partition)
    for name in consumer.order:
        consumer.lake.table(name)
    time.sleep(max(0.0, begin - time.time()))
    usage, took, due = _cpu(), [], begin + pace * partition / 97 % pace
    while (now := time.time()) < begin + seconds:
        if now < due:
            time.sleep(due - now)
        started = time.time()
        consumer.round()
        took.append(time.time() - started)
        due = max(due + pace, time.time())
    found.put((took, consumer.attempts, _cpu() - usage))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(settings: Settings, consumers: int, seconds: float, pace: float) -> tuple[list[str], int]:
    """A row of the table, and how many rounds were made."""
    lake = open_lake(settings, load_contracts())
    for name in [name for name, one in lake.contracts.items() if one.is_stream]:
        lake.table(name)
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    begin = time.time() + 3 + consumers
    arguments = [(settings, partition, begin, seconds, pace, found) for partition in range(consumers)]
    processes = [context.Process(target=work, args=one) for one in arguments]
    for process in processes:
        process.start()
    results = [found.get(timeout=seconds + 120) for _ in processes]
    for process in processes:
        process.join()
    took = [one for rounds, _, _ in results for one in rounds]
    tables = len([name for name, one in lake.contracts.items() if one.is_stream])
    attempts, used = sum(one for _, one, _ in results), sum(one for _, _, one in results)
    row = [
        str(consumers),
        f"{consumers / pace:.1f}",
        f"{len(took) / seconds:.1f}",
        *(f"{np.quantile(took, share):.2f}" for share in (0.5, 0.95)),
        f"{attempts / (len(took) * tables):.2f}",
        f"{1000 * used / len(took):.0f}",
    ]
    return row, len(took)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layout", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--catalog", default="", help="URL, as of RECSYS_DATA_CATALOG (default: SQLite)")
    parser.add_argument("--warehouse", default="", help="URL, as of RECSYS_DATA_WAREHOUSE (default: a folder)")
    parser.add_argument("--consumers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of consumers")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds from one commit of a consumer to its next")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsys-layout-") as folder:
        settings = Settings(
            dir=str(Path(folder) / "data"), catalog=options.catalog, warehouse=options.warehouse, log_partitions=1
        )
        rows, made = [], 0
        for consumers in options.consumers:
            row, rounds = measure(settings, consumers, options.seconds, options.pace)
            rows.append(row)
            made += rounds
        print_table(HEAD, rows)
        lake = open_lake(settings, load_contracts())
        missing = {
            name: made * LINES - ledger.read
            for name, one in lake.contracts.items()
            if one.is_stream and (ledger := read_ledger(lake.table(name))).read != made * LINES
        }
        sys.stdout.write(
            f"FAILED: lines missing {missing}\n" if missing else f"Every ledger has all {made:,} rounds.\n"
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
