"""The point-in-time join of a long spine with histories, against the bare joins of DuckDB and, if asked, Feast.

    python -m benchmarks.features pit --rows 10000000 --no-peers

Each way reads the same Parquet files (`pit_data`), has the same threads and memory, writes a Parquet file and runs in
a process of its own, in turn:

    range    the range join as one writes it by hand; its rows come in any order
    ordered  the same, with rows numbered and sorted; ours is compared with it, since it keeps the spine's order
    asof     the ASOF join, corrected by where states end
    ours     `point_in_time.join`, which also refuses histories whose states overlap, and says what was known

Results are compared by count and checksum. The table of daily values is joined as a history: each value is valid from
the end of its day until the next one.

Feast is installed into an environment of its own below the folder, and gets what it can express: the latest state
before each moment, with its end, by which the result is corrected. Its file store loses rows of the spine whose
entity has only later states; they are counted.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb

from benchmarks.features import pit_data
from benchmarks.features.measured import Measurement, in_turn, measure
from recsys_data.contracts.features.view import Feature, FeatureView, Source
from recsys_data.features.files import read_spine, write_joined
from recsys_data.features.lake import open_features
from recsys_data.features.point_in_time import join
from recsys_data.sql import limit_threads

MEMORY_BYTES = 800_000_000
THREADS = 2
RATIO, MOST_MB = 1.1, 1000
FEAST = "feast==0.67.*"
NEVER = "TIMESTAMPTZ '9999-01-01 00:00:00+00'"
GIVEN = ("number", "user_id", "item_id", "timestamp", "rating")
VALUES = {"users": pit_data.USER, "items": pit_data.ITEM, "daily": {"events_to_date": ""}}
KINDS = {"age": "BIGINT", "score": "DOUBLE", "price": "DOUBLE", "in_stock": "BOOLEAN", "events_to_date": "BIGINT"}
KEY = {"users": "user_id", "items": "item_id", "daily": "user_id"}


def until_next(folder: Path) -> str:
    """SQL of the daily values as a history."""
    return f"""SELECT *, lead(valid_from) OVER (PARTITION BY user_id ORDER BY valid_from) AS valid_to
        FROM '{folder / "daily.parquet"}'"""


def bare(folder: Path, way: str) -> None:
    """A join as one writes it by hand."""
    joins, values = [], [f"s.{name}" for name in GIVEN]
    for name, columns in VALUES.items():
        table, same = f"'{folder / name}.parquet'", f"s.{KEY[name]} = {name}.{KEY[name]} AND timestamp >= valid_from"
        ends = f"coalesce({name}.valid_to, {NEVER})"
        if name == "daily":
            table = f"({until_next(folder)})"
        if way == "asof":
            joins.append(f"ASOF LEFT JOIN {table} {name} ON {same.replace('valid_from', f'{name}.valid_from')}")
            values += [f"CASE WHEN timestamp < {ends} THEN {name}.{one} END AS {one}" for one in columns]
        else:
            within = same.replace("valid_from", f"{name}.valid_from") + f" AND timestamp < {ends}"
            joins.append(f"LEFT JOIN {table} {name} ON {within}")
            values += [f"{name}.{one}" for one in columns]
    config = {"threads": THREADS, "memory_limit": f"{MEMORY_BYTES // 1_000_000}MB"}
    with duckdb.connect(config={**config, "temp_directory": str(folder / "spill")}) as made:
        made.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        spine = f"FROM '{folder / 'spine.parquet'}'"
        if way == "ordered":
            made.execute(f"CREATE TEMP TABLE numbered AS SELECT row_number() OVER () AS place, * {spine}")
            spine, joins = "FROM numbered", [*joins, "ORDER BY place"]
        query = f"SELECT {', '.join(values)} {spine} s {' '.join(joins)}"
        made.execute(f"COPY ({query}) TO '{folder / way}.parquet' {pit_data.COPY}")


def ours(folder: Path, way: str) -> None:
    """The same with `point_in_time.join` and `write_joined`."""
    limit_threads(THREADS)
    times = dict.fromkeys(("valid_from", "valid_to"), "TIMESTAMP WITH TIME ZONE")
    sources, relations, views = {}, {}, []
    for name, columns in VALUES.items():
        types = {one: KINDS.get(one, "VARCHAR") for one in columns}
        sources[name] = Source({KEY[name]: "BIGINT", **types, **times}, None, None, (), ("valid_from", "valid_to"))
        relations[name] = f"FROM '{folder / name}.parquet'" if name != "daily" else until_next(folder)
        views.append(FeatureView(name, (KEY[name],), name, tuple(Feature(one, column=one) for one in columns)))
    with open_features(MEMORY_BYTES) as connection:
        spine = read_spine(connection, folder / "spine.parquet", ())
        write_joined(connection, join(connection, spine, views, sources, relations), folder / f"{way}.parquet")


def checksum(path: Path) -> tuple[int, ...]:
    """Rows, values of each history, and a sum over hashes of all rows in any order."""
    with duckdb.connect(config={"threads": THREADS}) as made:
        made.execute("SET TimeZone = 'UTC'")
        names = {name.split("__")[-1]: name for name in made.sql(f"FROM '{path}'").columns}
        listed = ", ".join(names[name] for name in (*GIVEN, *(one for columns in VALUES.values() for one in columns)))
        counts = ", ".join(f"count({names[one]})" for one in ("segment", "category", "events_to_date"))
        query = f"SELECT count(*), {counts}, sum(hash({listed}) // 4294967296) FROM '{path}'"
        ((*found,),) = made.execute(query).fetchall()
    return tuple(map(int, found))


def in_order(folder: Path) -> bool:
    """Whether our rows are those of the spine, in its order."""
    with duckdb.connect(config={"threads": THREADS}) as made:
        rows = f"read_parquet('{folder / 'ours.parquet'}', file_row_number = true)"
        return made.execute(f"SELECT count(*) FROM {rows} WHERE number <> file_row_number").fetchall() == [(0,)]


WORK = {"range": bare, "ordered": bare, "asof": bare, "ours": ours}


def compare(options: argparse.Namespace) -> list[str]:
    """Print the table; returns what misses its goal."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        pit_data.make(folder, options.rows)
        work = [sys.executable, "-m", "benchmarks.features.pit"]
        found = in_turn({way: [*work, way, folder] for way in WORK}, options.repeat)
        sums = {way: checksum(folder / f"{way}.parquet") for way in WORK}
        if not options.no_peers:
            found["feast"], sums["feast"] = feast(folder)
        ordered = in_order(folder)
    ratio = found["ours"].cpu_seconds / found["ordered"].cpu_seconds
    lines = [f"{'':8}{'s':>8}{'CPU s':>8}{'MB':>7}{'of range':>10}{'rows':>14}{'lost':>12}  values as range"]
    for way, one in found.items():
        share, lost = one.cpu_seconds / found["range"].cpu_seconds, options.rows - sums[way][0]
        same = "yes" if sums[way] == sums["range"] else "no"
        lines.append(
            f"{way:8}{one.seconds:>8.1f}{one.cpu_seconds:>8.1f}{one.peak_mb:>7.0f}{share:>10.2f}"
            f"{sums[way][0]:>14,}{lost:>12,}  {same}"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    problems = [] if ratio <= RATIO else [f"{ratio:.2f} times the CPU of the range join in order; at most {RATIO}"]
    problems += [] if found["ours"].peak_mb <= MOST_MB else [f"{found['ours'].peak_mb:.0f} MB; at most {MOST_MB}"]
    problems += [] if len({sums[way] for way in WORK}) == 1 else ["the joins differ"]
    return problems + ([] if ordered else ["rows are not in the order of the spine"])


def feast(folder: Path) -> tuple[Measurement, tuple[int, ...]]:
    """Feast with its file store, once."""
    environment = folder / "feast"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", FEAST], check=True)
    found = in_turn({"feast": [python, Path(__file__).with_name("pit_feast.py"), folder]}, 1)["feast"]
    correct(folder)
    return found, checksum(folder / "feast.parquet")


def correct(folder: Path) -> None:
    """Take out of Feast's result what had ended before the moment."""
    values = []
    for name, columns in VALUES.items():
        ends = f"{name}_valid_to::TIMESTAMPTZ"
        holds = "true" if name == "daily" else f"({ends} IS NULL OR event_timestamp::TIMESTAMPTZ < {ends})"
        values += [f"CASE WHEN {holds} THEN {one}::{KINDS.get(one, 'VARCHAR')} END AS {one}" for one in columns]
    with duckdb.connect(config={"threads": THREADS}) as made:
        made.execute("SET TimeZone = 'UTC'")
        given = "number, user_id, item_id, event_timestamp::TIMESTAMPTZ AS timestamp, rating"
        query = f"SELECT {given}, {', '.join(values)} FROM '{folder / 'feast-raw.parquet'}'"
        made.execute(f"COPY ({query}) TO '{folder / 'feast.parquet'}' {pit_data.COPY}")


if __name__ == "__main__":
    measure(lambda: WORK[sys.argv[1]](Path(sys.argv[2]), sys.argv[1]))
