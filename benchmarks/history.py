"""Time and memory of bringing a history up to date, against a plain DuckDB script that does the same to Parquet files.

    python benchmarks/history.py --rows 5000000

Two snapshots of an item catalogue are made: of the second 2 % of the rows are changed, 0.5 % new and 0.2 % gone. Both
ways get the same files, memory limit and threads, and run in processes of their own, in turn. The script compares the
day with the rows that are open, writes the open rows anew and the closed ones beside them, and syncs the files; it
keeps no catalog, so that it cannot be interrupted, repeated or run beside a reader.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb

MEMORY_BYTES = 1_000_000_000
THREADS = 2
DAYS = (date(2026, 1, 1), date(2026, 1, 2))
STATES = (
    "title", "brand", "price", "currency", "available", "release_year", "category_path", "language", "released",
    "created_at", "image_url",
)  # fmt: skip


def catalogue(rows: int, first: int, raised: str, where: str = "true") -> str:
    """SQL of items whose price is higher where `raised` holds."""
    return f"""SELECT 'item-' || (i + {first}) AS item_id, CASE WHEN hash(i * 7) % 20 > 0 THEN 'Title '
            || hash(i * 3) % 1000000 END AS title, 'brand' || hash(i * 5) % 500 AS brand,
        CASE WHEN hash(i * 17) % 15 > 0 THEN (hash(i * 19) % 10000000 / 100 + ({raised})::INTEGER)::DECIMAL(18, 4)
             WHEN {raised} THEN 1::DECIMAL(18, 4) END AS price,
        'EUR' AS currency, hash(i * 29) % 2 = 1 AS available, (1950 + hash(i * 13) % 70)::BIGINT AS release_year,
        ['c' || hash(i * 5) % 6, 'd' || hash(i * 11) % 60] AS category_path, 'en' AS language,
        DATE '2000-01-01' + (hash(i * 41) % 9000)::INTEGER AS released,
        TIMESTAMPTZ '2020-01-01' + to_microseconds((hash(i * 43) % 150000000000000)::BIGINT) AS created_at,
        'https://images.example/' || hash(i * 3) || '.jpg' AS image_url
        FROM range({rows}) t(i) WHERE {where}"""


def connection(folder: Path) -> duckdb.DuckDBPyConnection:
    made = duckdb.connect(config={"threads": THREADS})
    made.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{MEMORY_BYTES // 1_000_000}MB'")
    made.execute(f"SET preserve_insertion_order = false; SET temp_directory = '{folder / 'spill'}'")
    return made


def lake_in(folder: Path):
    """A lake with the columns of `item_catalog` that are filled here."""
    from recsys_data.contracts import load_contracts
    from recsys_data.contracts.derived import history_of
    from recsys_data.settings import Settings
    from recsys_data.storage.tables import open_lake

    whole = load_contracts()["item_catalog"]
    items = replace(whole, columns=tuple(c for c in whole.columns if c.system or c.name in ("item_id", *STATES)))
    history = history_of(items)
    return open_lake(Settings(dir=str(folder / "data")), {items.name: items, history.name: history})


def prepare(folder: Path, day: int, rows: int) -> float:
    """The snapshot of a day, as a Parquet file and stored in `item_catalog`."""
    import pyarrow as pa

    from recsys_data.storage.parquet import dictionary_columns, file_schema, write_day

    query = catalogue(rows, 0, "false")
    if day:
        query = catalogue(rows, 0, "i % 50 = 7", "i % 500 <> 3")
        query += f" UNION ALL {catalogue(rows // 200, rows, 'false')}"
    table = lake_in(folder).table("item_catalog")
    schema = file_schema(table.schema(), [field.name for field in table.schema().fields])
    path = folder / f"day{day}.parquet"
    with connection(folder) as made:
        made.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")
        known = f"DATE '{DAYS[day]}' AS snapshot_date, TIMESTAMPTZ '{DAYS[day]}' + INTERVAL 1 DAY AS as_of"
        reader = made.sql(f"SELECT *, {known} FROM '{path}'").to_arrow_reader(100_000)

        def part(batch: pa.RecordBatch) -> pa.Table:
            return pa.Table.from_batches([batch]).select(schema.names).cast(schema)

        first = part(next(reader))
        parts = itertools.chain([first], map(part, reader))
        file = write_day(table, (DAYS[day] - date(1970, 1, 1)).days, parts, dictionary_columns(first))
    transaction = table.transaction()
    with transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    transaction.commit_transaction()
    return 0.0


def ours(folder: Path, day: int) -> float:
    """Seconds of the call; the lake is open, as it is in a process that works with it."""
    from recsys_data.ingestion.batch.history.update import refresh_history

    lake = lake_in(folder)
    brought = refresh_history(lake, "item_catalog", folder / "staging", MEMORY_BYTES)
    assert brought.days == [DAYS[day]], brought
    return brought.seconds


def plain(folder: Path, day: int) -> float:
    """The same with DuckDB alone: `open<day>.parquet` from the one before, and the day's closed rows; in seconds."""
    began = time.perf_counter()
    before, now = folder / f"open{day - 1}.parquet", folder / f"day{day}.parquet"
    moment = datetime(DAYS[day].year, DAYS[day].month, DAYS[day].day + 1, tzinfo=UTC)
    columns = ", ".join(("item_id", *STATES))
    written = [folder / f"open{day}.parquet"]
    with connection(folder) as made:
        copy = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        new = f"TIMESTAMPTZ '{moment}' AS valid_from, NULL::TIMESTAMPTZ AS valid_to"
        if day == 0:
            query = f"SELECT {columns}, {new}, []::VARCHAR[] AS changed FROM '{now}'"
            made.execute(f"COPY ({query}) TO '{written[0]}' {copy}")
        else:
            differ = " OR ".join(f"o.{name} IS DISTINCT FROM n.{name}" for name in STATES)
            names = ", ".join(f"CASE WHEN o.{name} IS DISTINCT FROM n.{name} THEN '{name}' END" for name in STATES)
            made.execute(
                f"""CREATE TEMP TABLE changes AS SELECT coalesce(n.item_id, o.item_id) AS item_id,
                    {", ".join(f"n.{name}" for name in STATES)}, n.item_id IS NOT NULL AS opens,
                    CASE WHEN o.item_id IS NULL OR n.item_id IS NULL THEN []
                         ELSE list_filter([{names}], lambda name: name IS NOT NULL) END AS changed
                FROM '{before}' o FULL JOIN '{now}' n USING (item_id)
                WHERE o.item_id IS NULL OR n.item_id IS NULL OR {differ}"""
            )
            made.execute(
                f"""COPY (SELECT o.* FROM '{before}' o ANTI JOIN changes USING (item_id)
                UNION ALL SELECT {columns}, {new}, changed FROM changes WHERE opens) TO '{written[0]}' {copy}"""
            )
            written.append(folder / f"closed{day}.parquet")
            made.execute(
                f"""COPY (SELECT o.* REPLACE (TIMESTAMPTZ '{moment}' AS valid_to) FROM '{before}' o
                SEMI JOIN changes USING (item_id)) TO '{written[1]}' {copy}"""
            )
    for path in written:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - began


WORK = {"prepare": prepare, "plain": plain, "ours": ours}


def run(work: str, folder: Path, day: int, *more: object) -> tuple[float, float]:
    """Do a part of the work in a process of its own.

    Returns:
        Seconds, and the peak resident memory of the whole process in MB.
    """
    command = [sys.executable, __file__, "--work", work, str(folder), str(day), *map(str, more)]
    seconds, peak = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return seconds, peak


def work(name: str, folder: str, day: str, *more: str) -> None:
    seconds = WORK[name](Path(folder), int(day), *map(int, more))
    scale = 2**20 if sys.platform == "darwin" else 2**10
    sys.stdout.write(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale]))


def compare(rows: int, repeat: int, parent: Path | None) -> None:
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(repeat):
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            for day in range(len(DAYS)):
                run("prepare", Path(folder), day, rows)
                # Whoever comes second finds the snapshot in the page cache, if not in the same file.
                for way in ("plain", "ours") if number % 2 else ("ours", "plain"):
                    found.setdefault((way, day), []).append(run(way, Path(folder), day))
    lines = [
        f"{rows:,} rows x {len(STATES) + 1} columns, {THREADS} threads, {MEMORY_BYTES // 1_000_000} MB for DuckDB; "
        f"median of {repeat}, peak of the process",
        f"{'':12}{'plain DuckDB':>22}{'refresh_history':>22}{'ratio':>8}",
    ]
    for day, label in enumerate(("first day", "second day")):
        (plain_s, plain_mb), (ours_s, ours_mb) = (summary(found[way, day]) for way in ("plain", "ours"))
        lines.append(
            f"{label:12}{plain_s:>10.2f} s {plain_mb:>6.0f} MB{ours_s:>10.2f} s {ours_mb:>6.0f} MB"
            f"{ours_s / plain_s:>8.2f}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def summary(found: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(seconds for seconds, _ in found), max(peak for _, peak in found)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the first snapshot")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; needs about 400 bytes for each row")
    given = parser.parse_args()
    compare(given.rows, given.repeat, given.folder)


if __name__ == "__main__":
    main()
