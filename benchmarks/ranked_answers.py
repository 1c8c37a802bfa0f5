"""What ordering 100 candidates by features takes: `python -m benchmarks.ranked_answers [--events 100000]`.

A simulated shop is ingested and followed by the online store. Rankers of 200 trees, of 30 features and of all that the
training set of impressions has, order 100 candidates for visitors who ask in turn, in process: features are read,
values computed, trees asked. Candidates are drawn from the events, so that popular items are candidates more often.
Printed are processor time and time of an answer, and the processor time of its parts under a profiler, which slows
all of them down.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from benchmarks.parity import VIEWS, _parts
from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.serving.answers import Request
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.updater import Updater, online_views
from recsys_data.serving.online_store.lmdb import LmdbStore
from recsys_data.serving.rankers import SEPARATOR, ServedRanker
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake, open_lake
from recsys_data.training.baselines.ranker import LambdaRank

CANDIDATES, LEARNED, FEW, TREES = 100, 4_000, 30, 200
# Functions whose time is shown, by file and name.
PARTS = {
    "reading the store": ("online_store/lmdb.py", "get_many"),
    "decoding what is stored": ("online/pieces.py", "decoded"),
    "values of windows": ("online/values.py", "_states"),
    "expressions": ("online/values.py", "_express"),
    "ranker, without its trees": ("baselines/ranker.py", "_matrix"),
    "trees": ("lightgbm/basic.py", "predict"),
}


def main() -> None:
    """Make a shop, learn from it, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(dir=folder)
        lake = open_lake(settings, load_contracts())
        with closing(EmbeddedLog(settings.log_dir)) as log, closing(LmdbStore(Path(folder) / "online")) as store:
            for part in _parts(given.events, 1):
                log.append(part)
                for _ in consume(log, lake, settings, Until()):
                    pass
            Updater(lake, store).update()
            users, items = _met(lake)
            rows = _rows(lake, store, users, items)
            names = [name for name in rows.column_names if SEPARATOR in name]
            # Some of every view.
            few = names[:: max(1, len(names) // FEW)][:FEW]
            for features in (few, names):
                ranker = LambdaRank(features=tuple(features), trees=TREES, patience=TREES).fit(rows)
                _measure(ServedRanker(ranker, "ranker/1", lake, store), users, items, given.answers, len(features))


def _met(lake: Lake) -> tuple[list[str], list[str]]:
    """Users and items of events, as often as they occur."""
    rows = lake.table("interactions").scan(selected_fields=("user_id", "item_id")).to_arrow()
    return rows["user_id"].drop_null().to_pylist(), rows["item_id"].drop_null().to_pylist()


def _rows(lake: Lake, store: LmdbStore, users: Sequence[str], items: Sequence[str]) -> pa.Table:
    """Features of pairs with labels by chance: how long trees take does not depend on what they learned."""
    draw = np.random.default_rng(1)
    pairs = [[str(draw.choice(users)), str(draw.choice(items))] for _ in range(LEARNED)]
    views, left_out = online_views(lake)
    reader = FeatureReader(
        store, views, left_out, {name: [one.name for one in views[name].view.features] for name in VIEWS}
    )
    keys = {"user_id": 0, "item_id": 1}
    asked = {name: [[pair[keys[key]] for key in views[name].view.entity] for pair in pairs] for name in VIEWS}
    tables = reader.read(asked).tables
    columns: dict[str, Any] = {
        f"{view}{SEPARATOR}{name}": table[name]
        for view, table in tables.items()
        for name in table.column_names
        if not pa.types.is_nested(table[name].type) and not pa.types.is_temporal(table[name].type)
    }
    columns |= {
        "query_id": pa.array([str(number // 20) for number in range(LEARNED)]),
        "item_id": pa.array([item for _, item in pairs]),
        "label": pa.array((draw.random(LEARNED) < 0.2).astype(float)),
    }
    return pa.table(columns)


def _measure(ranker: ServedRanker, users: Sequence[str], items: Sequence[str], answers: int, features: int) -> None:
    draw = np.random.default_rng(2)
    asked = []
    for _ in range(answers):
        candidates = list(dict.fromkeys(draw.choice(items, 10 * CANDIDATES).tolist()))[:CANDIDATES]
        asked.append((Request(user_id=str(draw.choice(users))), candidates))
    for request, candidates in asked[:10]:
        ranker.score(request, candidates)
    times, cpu = [], time.process_time()
    for request, candidates in asked:
        begun = time.perf_counter()
        ranker.score(request, candidates)
        times.append(time.perf_counter() - begun)
    cpu = time.process_time() - cpu
    quantiles = statistics.quantiles(times, n=100)
    click.echo(
        f"{features} features, {statistics.mean(len(one) for _, one in asked):.0f} candidates: "
        f"{cpu / answers * 1000:.1f} ms of CPU an answer; p50 {quantiles[49] * 1000:.1f} ms, "
        f"p99 {quantiles[98] * 1000:.1f} ms"
    )
    with cProfile.Profile(time.thread_time) as profile:
        for request, candidates in asked[:100]:
            ranker.score(request, candidates)
    _print(pstats.Stats(profile), min(100, answers))


def _print(stats: pstats.Stats, answers: int) -> None:
    found: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]
    for name, (file, function) in PARTS.items():
        seconds = sum(row[3] for (path, _, of), row in found.items() if path.endswith(file) and of == function)
        click.echo(f"  {name}: {seconds / answers * 1000:.2f} ms under the profiler")


if __name__ == "__main__":
    main()
