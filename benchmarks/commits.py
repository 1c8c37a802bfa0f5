"""Ten thousand micro-batches in one lake, with maintenance now and then: does a commit cost the same in the end?

    python -m benchmarks.commits --batches 10000

Data flow: small events -> event log -> the ordinary consumer, whose slices are made small, -> four tables a commit.
Commits come many times as fast as in production, hence what goes by the clock is shortened in proportion: snapshots are
forgotten after `--snapshot-seconds` instead of two minutes, and each maintenance run believes that a day has passed
since the one before. Prints a line for about every 500 batches, draws `commits.svg`, and ends with 1 if a claim fails.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.report import print_table
from benchmarks.soak.samples import size_of
from recsys_data.contracts import load_contracts
from recsys_data.defs.ingestion.reporting import day_facts
from recsys_data.ingestion.streaming import consumer
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings
from recsys_data.storage import commit
from recsys_data.storage.maintenance.compaction import maintain_table
from recsys_data.storage.tables import Lake, open_lake

EVENTS = 50
WINDOW = 500
DAY = timedelta(days=1)
LATE = 0.1
MOST_LATE_DAYS = 4
SLOWER = 1.5
HEAD = (
    "batches", "commit p50 ms", "p95 ms", "most ms", "planning ms", "live files", "manifests", "snapshots",
    "files on disk", "MB on disk", "maintenance s",
)  # fmt: skip


def main() -> int:
    """Commit, look, and judge."""
    options = _options()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="recsys-commits-"))
    settings = Settings(dir=str(folder / "data"), log_partitions=1)
    if options.draw:
        draw(json.loads((folder / "commits.json").read_text()), folder / "commits.svg")
        return 0
    lake = open_lake(settings, load_contracts())
    commit.SNAPSHOT_AGE = timedelta(seconds=options.snapshot_seconds)
    windows = run(lake, settings, options)
    problems = verify(windows)
    draw(windows, folder / "commits.svg")
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    if options.folder is None and not problems:
        shutil.rmtree(folder)
    return 1 if problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--maintenance", type=int, default=1_000, help="batches from one maintenance run to the next")
    parser.add_argument("--snapshot-seconds", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="where to keep everything (default: a temporary folder)")
    parser.add_argument("--draw", action="store_true", help="only draw what a run has left in --folder")
    return parser.parse_args()


def run(lake: Lake, settings: Settings, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Consume `options.batches` slices, a commit each; returns what was found, by window."""
    windows: list[dict[str, Any]] = []
    rng, now = random.Random(1), datetime.now(UTC)
    made = 0
    print_table(HEAD, [])
    with contextlib.closing(open_log(settings)) as log:
        while made < options.batches:
            lines = [line(rng, now) for _ in range(EVENTS * WINDOW)]
            times = [flushed.seconds for flushed in consumed(log, lake, settings, lines)]
            before, made = made, made + len(times)
            seconds = 0.0
            if made // options.maintenance > before // options.maintenance:
                seconds = kept_up(lake, now + (made // options.maintenance) * DAY)
            windows.append(window(made, times, lake, settings) | {"maintenance s": round(seconds, 1)})
            sys.stdout.write(f"| {' | '.join(f'{windows[-1][name]:,}' for name in HEAD)} |\n")
            sys.stdout.flush()
            (settings.data_dir.parent / "commits.json").write_text(json.dumps(windows))
    return windows


def consumed(log: Any, lake: Lake, settings: Settings, lines: list[bytes]) -> Iterator[Any]:
    """Append the lines in groups, each of which is a slice, hence a commit."""
    limits = ConsumerLimits(slice_bytes=sum(map(len, lines)) // len(lines) * EVENTS + EVENTS, commit_rows=1)
    for start in range(0, len(lines), EVENTS):
        log.append(lines[start : start + EVENTS])
    yield from consumer.consume(log, lake, settings, consumer.Until(), limits)


def line(rng: random.Random, now: datetime) -> bytes:
    """An event of today, or of one of the days before; a third with context, some broken, some identities."""
    late = rng.randint(1, MOST_LATE_DAYS) if rng.random() < LATE else 0
    event: dict[str, Any] = {"event_id": f"{rng.getrandbits(128):032x}", "type": "view", "user_id": "u1"}
    event |= {"item_id": f"i{rng.randrange(5000):04d}", "received_at": now.isoformat()}
    event["event_ts"] = (now - late * DAY).isoformat()
    kind = rng.random()
    if kind < 0.02:
        del event["item_id"]
    elif kind < 0.05:
        event |= {"type": "identify", "anonymous_id": "a1", "item_id": None}
    elif kind < 0.35:
        event["context"] = {"page": "p"}
    return json.dumps(event, separators=(",", ":")).encode()


def kept_up(lake: Lake, now: datetime) -> float:
    """Seconds of maintenance of all stream tables, as of `now`."""
    begun = time.monotonic()
    for name in streams(lake):
        maintain_table(lake, name, now)
    return time.monotonic() - begun


def streams(lake: Lake) -> list[str]:
    return [name for name, contract in lake.contracts.items() if contract.is_stream]


def window(made: int, times: list[float], lake: Lake, settings: Settings) -> dict[str, Any]:
    """What there is now, over all stream tables; `planning` is what a consumer does for each report to Dagster."""
    files = manifests = snapshots = 0
    begun = time.monotonic()
    for name in streams(lake):
        files += sum(day.files for day in day_facts(lake, name).values())
    planning = time.monotonic() - begun
    for name in streams(lake):
        table = lake.table(name)
        snapshots += len(table.metadata.snapshots)
        current = table.current_snapshot()
        manifests += len(current.manifests(table.io)) if current else 0
    p50, p95, most = np.quantile(times, [0.5, 0.95, 1.0]) * 1000
    stored, size = size_of(settings.lake_dir)
    values = (made, round(p50), round(p95), round(most), round(planning * 1000), files, manifests, snapshots, stored)
    return dict(zip(HEAD, (*values, round(size / 1e6), 0.0), strict=True))


def verify(windows: list[dict[str, Any]]) -> list[str]:
    """What is not flat, from the first maintenance on."""
    problems = []
    half = len(windows) // 2
    early, late = windows[2:half] or windows[:1], windows[half:]
    for name, factor in (("commit p50 ms", SLOWER), ("p95 ms", SLOWER), ("live files", SLOWER), ("manifests", SLOWER)):
        before, after = (float(np.median([one[name] for one in some])) for some in (early, late))
        if after > factor * before:
            problems.append(f"{name} grows from {before:,.0f} to {after:,.0f}")
    return problems


def draw(windows: list[dict[str, Any]], path: Path) -> None:
    """Three panels over the number of batches."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "soak"})
    figure, panels = plt.subplots(1, 3, figsize=(9, 2.5), layout="constrained")
    batches = [one["batches"] for one in windows]
    titles = {
        "commit of four tables, ms": ("commit p50 ms", "p95 ms"),
        "in use": ("live files", "manifests", "snapshots"),
        "on disk": ("files on disk",),
    }
    for axes, (title, names) in zip(panels, titles.items(), strict=True):
        for name in names:
            axes.plot(batches, [one[name] for one in windows], lw=1, label=name)
        axes.set(title=title, ylim=(0, None), xlabel="batches")
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
