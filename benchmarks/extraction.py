"""How fast, and in how much memory, a table of PostgreSQL becomes typed Arrow batches.

Compares `recsys_data.sources.extract` with `pandas.read_sql` and `fetchmany`, both through SQLAlchemy, on the same
table: twelve columns of the types that user tables have. Each runs in a process of its own, so that the peak of its
memory is its own. Starts nothing: give it an empty database, in which it makes the table and removes it again.

    python benchmarks/extraction.py --url postgresql://user@localhost/empty --rows 1000000
"""

import json
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path

TABLE = "recsys_data_extraction_benchmark"
TYPES = {
    "id": "string",
    "email_domain": "string",
    "country": "string",
    "birth_year": "integer",
    "orders_count": "integer",
    "total_spent": "decimal(18,2)",
    "score": "number",
    "consent": "boolean",
    "registered_at": "timestamp",
    "last_order_on": "date",
    "segments": "list<string>",
    "attributes": "object",
}
MAKE = f"""
CREATE TABLE {TABLE} AS SELECT
    g AS id, 'example' || g % 1000 || '.org' AS email_domain, (ARRAY['DE', 'FR', 'GB', 'US'])[1 + g % 4] AS country,
    (1950 + g % 60)::int AS birth_year, nullif(g % 50, 0)::int AS orders_count,
    (g % 1000000 / 100.0)::numeric(18, 2) AS total_spent, g / 7.0::float8 AS score, g % 3 = 0 AS consent,
    timestamptz '2020-01-01 00:00:00+00' + g * interval '1 second' AS registered_at,
    date '2020-01-01' + (g % 2000)::int AS last_order_on, ARRAY['new', 'segment ' || g % 10] AS segments,
    jsonb_build_object('newsletter', g % 2 = 0, 'theme', 'dark') AS attributes
FROM generate_series(1::bigint, %d) AS g
"""
CHUNK_ROWS = 50_000


def extract_rows(url: str) -> int:
    from recsys_data.contracts.servers import Server
    from recsys_data.sources.extract import extract
    from recsys_data.sources.source import ColumnRequest

    wanted = [ColumnRequest(name, kind, name) for name, kind in TYPES.items()]
    with extract(Server("benchmark", url, table=TABLE), wanted, datetime.now(UTC).date(), Path()) as found:
        return sum(batch.num_rows for batch in found.batches)


def pandas_rows(url: str) -> int:
    import pandas as pd

    with _engine(url).connect() as connection:
        return len(pd.read_sql(f"SELECT * FROM {TABLE}", connection))


def pandas_chunk_rows(url: str) -> int:
    import pandas as pd

    with _engine(url).connect().execution_options(stream_results=True) as connection:
        chunks = pd.read_sql(f"SELECT * FROM {TABLE}", connection, chunksize=CHUNK_ROWS)
        return sum(len(chunk) for chunk in chunks)


def sqlalchemy_rows(url: str) -> int:
    rows = 0
    with _engine(url).connect().execution_options(stream_results=True) as connection:
        result = connection.exec_driver_sql(f"SELECT * FROM {TABLE}")
        while chunk := result.fetchmany(CHUNK_ROWS):
            rows += len(chunk)
    return rows


WAYS = {
    "recsys-data": extract_rows,
    "pandas.read_sql": pandas_rows,
    "pandas.read_sql, chunks": pandas_chunk_rows,
    "SQLAlchemy, untyped rows": sqlalchemy_rows,
}


def _engine(url: str):
    from sqlalchemy import create_engine

    return create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def measure(way: str, url: str) -> dict[str, float]:
    """Seconds, rows and peak memory (MB) of one way in this process, imports aside."""
    import pandas
    import pyarrow
    import sqlalchemy  # noqa: F401

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    rows = WAYS[way](url)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del pandas, pyarrow
    return {"seconds": seconds, "rows": rows, "peak": peak, "more": peak - idle}


def main() -> None:
    parser = ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--url", required=True, help="postgresql:// URL of an empty database")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--without-peers", action="store_true", help="measure recsys-data alone")
    parser.add_argument("--measure", help="measure one way on the table as it is, and print JSON")
    given = parser.parse_args()
    if given.measure:
        sys.stdout.write(json.dumps(measure(given.measure, given.url)))
        return
    engine = _engine(given.url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execution_options(no_parameters=True).exec_driver_sql(MAKE.replace("%d", str(given.rows)))
    try:
        report(given.url, given.rows, list(WAYS)[:1] if given.without_peers else list(WAYS))
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {TABLE}")


def report(url: str, rows: int, ways: list[str]) -> None:
    found = {}
    for way in ways:
        command = [sys.executable, __file__, "--url", url, "--measure", way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[way] = json.loads(done.stdout)
        assert found[way]["rows"] == rows, f"{way} gave {found[way]['rows']} rows of {rows}"
    base = found.get("pandas.read_sql", {}).get("seconds", 0)
    lines = ["| way | rows/s | times pandas.read_sql | peak MB | of it for the read |", "|---|---:|---:|---:|---:|"]
    for way, cost in found.items():
        ratio = f"{base / cost['seconds']:.1f}" if base else "–"
        speed = f"{rows / cost['seconds']:,.0f} | {ratio}"
        lines.append(f"| {way} | {speed} | {cost['peak']:,.0f} | {cost['more']:,.0f} |")
    sys.stdout.write(f"{rows:,} rows of {len(TYPES)} columns\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
