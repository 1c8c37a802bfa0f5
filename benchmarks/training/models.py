"""Baselines fitted on a million interactions of 100,000 users with 20,000 items, some of them far more popular.

    python -m benchmarks.training models

Each model is fitted in a process of its own, which then recommends ten items to a thousand users.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.features.measured import measure, run
from recsys_data.training.baselines import MODELS

# Seconds that fitting may take; None: no goal.
GOAL_SECONDS: Mapping[str, float | None] = {
    "popular": None, "item_knn": 60, "rp3beta": None, "sar": None, "session_knn": None, "ease": 60, "als": 60,
}  # fmt: skip
MOST_MB = 2000
# EASE inverts a matrix of items x items: rare ones are left out, as its module says.
PARAMETERS: Mapping[str, Mapping[str, Any]] = {"ease": {"min_item_interactions": 20}}
FIRST, SPAN = 1_767_225_600_000_000, 60 * 86_400_000_000
ASKED, N = 1000, 10


def interactions(rows: int, users: int, items: int) -> pa.Table:
    """Random interactions: the popularity of items, and the activity of users, fall as a power of their rank."""
    random = np.random.default_rng(7)

    def drawn(count: int, exponent: float) -> np.ndarray:
        weights = np.arange(1, count + 1, dtype=float) ** -exponent
        return random.permutation(count)[random.choice(count, rows, p=weights / weights.sum())]

    user, item = drawn(users, 0.5), drawn(items, 0.8)
    time_of = FIRST + random.integers(0, SPAN, rows)
    names: dict[str, Any] = {
        "user_id": pa.array(np.char.add("user-", user.astype(str))),
        "item_id": pa.array(np.char.add("item-", item.astype(str))),
        "timestamp": pa.array(time_of, pa.timestamp("us", "UTC")),
        "weight": pa.array(random.choice([1.0, 3.0, 5.0], rows, p=[0.8, 0.15, 0.05])),
        "session_id": pa.array(np.char.add(np.char.add("s", user.astype(str)), (time_of // 10**12).astype(str))),
    }
    return pa.table(names)


def fit(name: str, path: Path) -> float:
    """Fit a model and recommend with it; returns the seconds that fitting took."""
    table = pq.read_table(path)
    began = time.perf_counter()
    model = MODELS[name](**PARAMETERS.get(name, {})).fit(table)
    fitted = time.perf_counter() - began
    model.recommend(table["user_id"].unique()[:ASKED], N)
    sys.stderr.write(f"  {name}: fitted in {fitted:.1f} s\n")
    return fitted


def compare(options: argparse.Namespace) -> list[str]:
    """Print the table; returns what misses its goal."""
    problems = []
    sys.stdout.write(f"{'':14}{'fit s':>8}{'all s':>8}{'CPU s':>8}{'MB':>7}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "interactions.parquet"
        pq.write_table(interactions(options.interactions, options.users, options.items), path)
        for name in options.model or GOAL_SECONDS:
            found = run([sys.executable, "-m", "benchmarks.training.models", name, str(path)])
            sys.stdout.write(
                f"{name:14}{found.answer:>8.1f}{found.seconds:>8.1f}{found.cpu_seconds:>8.1f}{found.peak_mb:>7.0f}\n"
            )
            sys.stdout.flush()
            most = GOAL_SECONDS[name] or float("inf")
            problems += [] if found.answer <= most else [f"{name}: {found.answer:.0f} s; at most {most}"]
            problems += [] if found.peak_mb <= MOST_MB else [f"{name}: {found.peak_mb:.0f} MB; at most {MOST_MB}"]
    return problems


if __name__ == "__main__":
    measure(lambda: fit(sys.argv[1], Path(sys.argv[2])))
