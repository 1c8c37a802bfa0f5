"""A training set of impressions with 30 features, built from a lake of events.

    python -m benchmarks.training set --events 10000000

Two thirds of the events of 30 days are impressions, in lists of ten. A quarter of them is clicked and looked at, some
are put into the cart, bought and given back; every third visitor is anonymous. Rows are the impressions of lists with
an outcome, and an item drawn for each positive row; features are some of the shipped views. `--folder` keeps the lake
for the next run.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import yaml

from benchmarks.features.measured import Measurement, measure, peak_mb, run
from recsys_data.contracts import load_contracts
from recsys_data.contracts.types import duckdb_type
from recsys_data.features.lake import open_features
from recsys_data.settings import Settings
from recsys_data.sql import limit_threads, quote
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.duckdb_writer import copy_rows
from recsys_data.storage.ledger import LEDGER, Ledger
from recsys_data.storage.tables import Lake, open_lake
from recsys_data.training.sets.build import build
from recsys_data.training.sets.manifest import read_manifest

DAYS, FIRST = 30, 20_454  # 2026-01-01
DAY, SECOND = 86_400_000_000, 1_000_000
THREADS = 2
LIST = 10
# By a list of ten: impressions, clicks and views of a quarter of them, carts of a fifth of these, purchases of half of
# those, of which a tenth is given back.
EVENTS_PER_LIST = LIST * (1 + 0.25 * (2 + 0.2 * (1 + 0.5 * 1.1)))
EVENTS_PER_USER, ITEMS = 100, 50_000
# For 10,000,000 events.
MOST_SECONDS, MOST_MB, OF_EVENTS = 300, 2000, 10_000_000
NAME = "shown"
FEATURES = {
    "item_engagement": (
        "impressions_1h", "clicks_1h", "impressions_24h", "clicks_24h", "purchases_24h", "ctr_24h", "impressions_7d",
        "clicks_7d", "views_7d", "carts_7d", "purchases_7d", "revenue_7d", "ctr_7d", "popularity",
    ),
    "user_activity": (
        "events_1h", "events_24h", "events_7d", "views_7d", "clicks_7d", "carts_7d", "purchases_30d", "spent_30d",
        "last_seen", "hours_since_last",
    ),
    "user_item": ("times_shown", "times_seen", "times_bought", "last_shown", "last_seen", "hours_since_seen"),
}  # fmt: skip
SET = {
    "name": NAME,
    "rows": "impressions",
    "labels": [
        {"type": "click", "weight": 1},
        {"type": "add_to_cart", "weight": 3},
        {"type": "purchase", "weight": 5, "refunds": "negate"},
    ],
    "bots": "events > 5000 OR (clicks > 500 AND purchases = 0)",
    "negatives": {"lists": "followed", "sampled": 1, "by": "popularity"},
    "features": [f"{name}_30" for name in FEATURES],
    "split": {"by": "time", "validation": 0.1, "test": 0.2, "gap": "1h"},
}


def declare(folder: Path) -> None:
    """Write the set, and the shipped views without most of their features."""
    contracts = folder / "contracts"
    (contracts / "training_sets").mkdir(parents=True)
    (contracts / "training_sets" / f"{NAME}.yaml").write_text(yaml.safe_dump(SET))
    shipped = load_contracts()
    for name, features in FEATURES.items():
        view = yaml.safe_load(shipped[name].path.read_text("utf-8"))
        view["id"] = view["name"] = view["schema"][0]["name"] = f"{name}_30"
        view["schema"][0]["properties"] = [
            one for one in view["schema"][0]["properties"] if one.get("primaryKey") or one["name"] in features
        ]
        (contracts / f"{name}_30.odcs.yaml").write_text(yaml.safe_dump(view))


def settings_of(folder: Path) -> Settings:
    return Settings(dir=str(folder / "data"), contracts=str(folder / "contracts"), duckdb_threads=THREADS)


def lake_in(folder: Path) -> Lake:
    limit_threads(THREADS)
    return open_lake(settings_of(folder), load_contracts(folder / "contracts"))


def events(first: int, last: int, day: int, users: int) -> str:
    """SQL of what came of some lists on a day, with the columns of interactions that are not NULL."""
    return f"""
        WITH lists AS (SELECT l, (power(hash(l * 3) % 1000000 / 1000000, 1.5) * {users})::BIGINT AS u,
                {day} * {DAY} + (hash(l * 11) % {DAY - 7200 * SECOND})::BIGINT AS t FROM range({first}, {last}) t(l)),
        shown AS (SELECT l, u, t + p * 1000 AS t, p, l * {LIST} + p AS n, hash(l * {LIST} + p) AS h,
                (power(hash((l * {LIST} + p) * 5) % 1000000 / 1000000, 3) * {ITEMS})::BIGINT AS i
            FROM lists, range({LIST}) p(p)),
        clicked AS (SELECT *, hash(n * 7) AS g FROM shown WHERE h % 4 = 0),
        happened AS (SELECT *, 'impression' AS type, 0 AS kind FROM shown
            UNION ALL SELECT * EXCLUDE (g) REPLACE (t + (5 + h % 300)::BIGINT * {SECOND} AS t), 'click', 1 FROM clicked
            UNION ALL SELECT * EXCLUDE (g) REPLACE (t + (7 + h % 300)::BIGINT * {SECOND} AS t), 'view', 2 FROM clicked
            UNION ALL SELECT * EXCLUDE (g) REPLACE (t + (400 + h % 600)::BIGINT * {SECOND} AS t), 'add_to_cart', 3
                FROM clicked WHERE g % 5 = 0
            UNION ALL SELECT * EXCLUDE (g) REPLACE (t + (1200 + h % 600)::BIGINT * {SECOND} AS t), 'purchase', 4
                FROM clicked WHERE g % 10 = 0
            UNION ALL SELECT * EXCLUDE (g) REPLACE (t + (2000 + h % 5000)::BIGINT * {SECOND} AS t), 'refund', 5
                FROM clicked WHERE g % 100 = 0)
        SELECT md5(concat(kind, '-', n)) AS event_id, type,
            CASE WHEN u % 3 > 0 THEN 'user-' || u END AS user_id, 'device-' || u AS anonymous_id,
            'item-' || i AS item_id, concat('session-', u, '-', {day}) AS session_id,
            make_timestamptz(t) AS event_ts, make_timestamptz(t + 50000) AS received_at,
            make_timestamptz(t + {SECOND}) AS ingested_at,
            CASE WHEN kind IN (4, 5) THEN h % 10000 / 100 END AS value,
            p + 1 AS position, CASE WHEN l % 2 = 0 THEN concat('category/', l % 200) END AS list_id,
            CASE WHEN kind IN (4, 5) THEN 'order-' || n END AS order_id,
            CASE WHEN l % 2 = 1 THEN 'recommendation-' || l END AS recommendation_id,
            0 AS log_partition, n * 6 + kind AS log_offset
        FROM happened"""


def make(folder: Path, count: int) -> float:
    """Put the events into the lake, a file a day, as if they had been read from a log."""
    declare(folder)
    lake = lake_in(folder)
    table = lake.table("interactions")
    daily = round(count / EVENTS_PER_LIST / DAYS)
    files, rows = [], 0
    with open_features() as connection:
        for number in range(DAYS):
            happened = events(number * daily, (number + 1) * daily, FIRST + number, count // EVENTS_PER_USER)
            given = connection.sql(f"DESCRIBE {happened}").fetchall()
            filled = {name for name, *_ in given}
            columns = ", ".join(
                f"{quote(one.name) if one.name in filled else 'NULL'}::{duckdb_type(one.type)} AS {quote(one.name)}"
                for one in lake.contracts["interactions"].columns
            )
            file = copy_rows(connection, f"SELECT {columns} FROM ({happened})", table, FIRST + number)
            assert file is not None
            files.append(file)
            rows += file.record_count
    ledger = Ledger(positions={0: DAYS * daily * LIST * 6}, read=rows, accepted=rows, rows=rows)
    properties = {LEDGER: msgspec.json.encode(ledger).decode()}
    compare_and_set(table, lambda _: Change(added=files, properties=properties))
    return float(rows)


def make_set(folder: Path) -> float:
    """Build the set, and say how long each step took; returns the number of rows."""
    lake = lake_in(folder)
    steps: list[tuple[str, float, float]] = []

    def on_progress(step: str) -> None:
        now = time.perf_counter(), time.process_time()
        if steps:
            before, *began = steps[-1]
            seconds, cpu = (now[place] - began[place] for place in (0, 1))
            sys.stderr.write(f"  {before:44}{seconds:>8.1f} s{cpu:>8.1f} CPU s, at most {peak_mb():.0f} MB so far\n")
        steps.append((step, *now))

    built = build(lake, settings_of(folder), NAME, on_progress=on_progress)
    on_progress("")
    return float(built.manifest.counts["rows"])


def verify(folder: Path) -> list[str]:
    """Whether the counts of the manifest add up, and all rows are in files."""
    counts = read_manifest(settings_of(folder), NAME)[0].counts
    shown = sum(counts[f"impressions_{one}"] for one in ("of_bots", "immature", "followed", "not_followed"))
    splits = sum(counts[one] for one in ("train", "validation", "test", "gap"))
    total = shown + counts["impressions_not_followed_left_out"]
    problems = [] if total == counts["impressions"] else [f"{counts['impressions']:,} impressions, {total:,} counted"]
    return problems + ([] if splits == counts["rows"] else [f"{counts['rows']:,} rows, {splits:,} in splits"])


def compare(options: argparse.Namespace) -> list[str]:
    """Print what it took; returns what misses its goal."""
    found: list[Measurement] = []
    problems: list[str] = []
    work = [sys.executable, "-m", "benchmarks.training.sets"]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name) if options.folder is None else options.folder / f"{options.events}-events"
        if not folder.is_dir() or not any(folder.iterdir()):
            folder.mkdir(parents=True, exist_ok=True)
            run([*work, "make", str(folder), str(options.events)])
        for _ in range(options.repeat):
            remove_built(folder)
            found.append(run([*work, "build", str(folder)]))
            problems += verify(folder)
    seconds, cpu = (statistics.median(one[place] for one in found) for place in (0, 1))
    peak = max(one.peak_mb for one in found)
    sys.stdout.write(
        f"{'events':>12}{'rows':>12}{'s':>8}{'CPU s':>8}{'MB':>7}{'rows/CPU s':>12}\n"
        f"{options.events:>12,}{found[0].answer:>12,.0f}{seconds:>8.1f}{cpu:>8.1f}{peak:>7.0f}"
        f"{found[0].answer / cpu:>12,.0f}\n"
    )
    most = MOST_SECONDS * options.events / OF_EVENTS
    problems += [] if seconds <= most else [f"{seconds:.0f} s; at most {most:.0f}"]
    return problems + ([] if peak <= MOST_MB else [f"{peak:.0f} MB; at most {MOST_MB}"])


def remove_built(folder: Path) -> None:
    """Remove the versions of earlier runs: of the same inputs nothing would be built."""
    shutil.rmtree(settings_of(folder).training_dir, ignore_errors=True)


if __name__ == "__main__":
    where = Path(sys.argv[2])
    measure(lambda: make(where, int(sys.argv[3])) if sys.argv[1] == "make" else make_set(where))
