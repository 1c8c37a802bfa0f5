"""Aggregates of events over four windows, computed for every day and written to a lake.

    python -m benchmarks.features windows --events 10000000

Events of 30 days are put into the table of interactions; then one view of users with five functions over four windows
is refreshed: tiles and values of each day are computed, written, synced and committed. A value counts once, for each
user and day on which the user did something. The number of rows and the values of the last day are compared with plain
SQL over the events.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.features.measured import Measurement, measure, run
from recsys_data.contracts import load_contracts
from recsys_data.contracts.types import duckdb_type
from recsys_data.features.lake import open_features
from recsys_data.features.materialize import refresh_view
from recsys_data.settings import Settings
from recsys_data.sql import limit_threads, quote
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.duckdb_writer import copy_rows
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake, open_lake

DAYS, FIRST = 30, 20_454  # 2026-01-01
DAY = 86_400_000_000
USERS_PER_EVENT = 100
THREADS = 2
GOAL, MOST_MB = 2_500_000, 1500
WINDOWS = {"1h": "rolling", "24h": "rolling", "7d": "sawtooth", "30d": "sawtooth"}
FUNCTIONS = ("count", "sum", "avg", "min", "max")
NAME = "user_windows"


def contract() -> str:
    """The view, as a user would write it."""
    columns = [
        {"name": "user_id", "logicalType": "string", "primaryKey": True, "required": True},
        {"name": "feature_ts", "logicalType": "timestamp", "primaryKey": True, "required": True, "partitioned": True},
    ]
    for size, kind in WINDOWS.items():
        for function in FUNCTIONS:
            given = {
                "function": function,
                "window": {kind: size},
                **({} if function == "count" else {"source": "value"}),
            }
            options = [{"property": name, "value": value} for name, value in given.items()]
            type_ = "integer" if function == "count" else "number"
            columns.append({"name": f"{function}_{size}", "logicalType": type_, "customProperties": options})
    return json.dumps(
        {
            "apiVersion": "v3.2.0",
            "kind": "DataContract",
            "id": NAME,
            "name": NAME,
            "version": "1.0.0",
            "status": "active",
            "slaProperties": [{"property": "latency", "value": 30, "unit": "h"}],
            "schema": [
                {
                    "name": NAME,
                    "logicalType": "object",
                    "customProperties": [{"property": "featuresOf", "value": "interactions"}],
                    "properties": columns,
                }
            ],
        }
    )


def settings_of(folder: Path) -> Settings:
    return Settings(dir=str(folder / "data"), duckdb_threads=THREADS)


def lake_in(folder: Path) -> Lake:
    limit_threads(THREADS)
    return open_lake(settings_of(folder), load_contracts(folder / "contracts"))


def make(folder: Path, events: int) -> float:
    """Put the events into the lake, a file a day."""
    (folder / "contracts").mkdir()
    (folder / "contracts" / f"{NAME}.odcs.yaml").write_text(contract())
    lake = lake_in(folder)
    table = lake.table("interactions")
    daily = events // DAYS
    with open_features() as connection:
        files = []
        for day in range(FIRST, FIRST + DAYS):
            moment = f"make_timestamptz(({day} * {DAY} + hash(i * 11) % {DAY})::BIGINT)"
            filled = {
                "event_id": "'event-' || i",
                "type": "CASE WHEN i % 20 = 0 THEN 'purchase' ELSE 'view' END",
                "user_id": f"'user-' || hash(i * 3) % {events // USERS_PER_EVENT}",
                "item_id": "'item-' || hash(i * 5) % 50000",
                "event_ts": moment,
                "received_at": moment,
                "ingested_at": moment,
                "value": "CASE WHEN i % 20 = 0 THEN hash(i * 7) % 100000 / 100 END",
                "log_partition": "0",
                "log_offset": "i",
            }
            columns = ", ".join(
                f"({filled.get(one.name, 'NULL')})::{duckdb_type(one.type)} AS {quote(one.name)}"
                for one in lake.contracts["interactions"].columns
            )
            first = (day - FIRST) * daily
            files.append(
                copy_rows(connection, f"SELECT {columns} FROM range({first}, {first + daily}) t(i)", table, day)
            )
    compare_and_set(table, lambda _: Change(added=[file for file in files if file]))
    return 0.0


def refresh(folder: Path) -> float:
    """Compute and store all days; returns the number of values."""
    lake = lake_in(folder)
    return float(sum(update.values for update in refresh_view(lake, settings_of(folder), NAME)))


def verify(folder: Path) -> list[str]:
    """Compare rows, and the values of the last day, with plain SQL."""
    lake = lake_in(folder)
    events, values = (relation(lake.table(name), data_files(lake.table(name))) for name in ("interactions", NAME))
    end = (FIRST + DAYS) * DAY - 1
    with open_features() as connection:
        rows = connection.sql(
            f"SELECT count(DISTINCT (user_id, epoch_us(event_ts) // {DAY})) FROM ({events})"
        ).fetchall()
        stored = connection.sql(f"SELECT count(*) FROM ({values})").fetchall()
        window = f"epoch_us(event_ts) >= {end - DAY} AND epoch_us(event_ts) < {end}"
        direct = f"""SELECT user_id, count(*) AS n, sum(value::DECIMAL(18, 4))::DOUBLE AS s FROM ({events})
            WHERE {window} GROUP BY user_id"""
        differ = connection.sql(
            f"""SELECT count(*) FROM ({direct}) d FULL JOIN
            (SELECT * FROM ({values}) WHERE epoch_us(feature_ts) = {end}) v
            USING (user_id) WHERE n IS DISTINCT FROM count_24h OR s IS DISTINCT FROM sum_24h"""
        ).fetchall()
    return [] if (stored, differ) == (rows, [(0,)]) else [f"rows {stored}, expected {rows}; values differ: {differ}"]


def compare(options: argparse.Namespace) -> list[str]:
    """Print what it took; returns what misses its goal."""
    found: list[Measurement] = []
    problems: list[str] = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            work = [sys.executable, "-m", "benchmarks.features.windows"]
            run([*work, "make", name, str(options.events)])
            found.append(run([*work, "refresh", name]))
            problems += verify(Path(name))
    values, rate = found[0].answer, statistics.median(one.answer / one.seconds for one in found)
    cpu, peak = statistics.median(one.cpu_seconds for one in found), max(one.peak_mb for one in found)
    sys.stdout.write(
        f"{options.events:,} events, {values:,.0f} values: {rate:,.0f} values/s, {values / cpu:,.0f} a CPU second, "
        f"{statistics.median(one.seconds for one in found):.1f} s, {cpu:.1f} CPU s, {peak:.0f} MB\n"
    )
    problems += [] if rate >= GOAL else [f"{rate:,.0f} values/s; at least {GOAL:,}"]
    return problems + ([] if peak <= MOST_MB else [f"{peak:.0f} MB; at most {MOST_MB}"])


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    measure(lambda: make(folder, int(sys.argv[3])) if sys.argv[1] == "make" else refresh(folder))
