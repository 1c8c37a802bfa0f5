"""Kill, stop and starve real processes of the platform, and count what is lost, doubled or does not recover.

    python -m benchmarks.faults [--quick] [--seed N] [--injections N] [--only TEXT] [--sabotage PROTECTION] [--jobs N]

Prints a table and ends with 1 if anything is wrong. Each platform lies in a folder of its own, on loopback; one that
is found wrong is kept for a look. `--sabotage` switches a protection off, upon which the harness has to fail.
Linux only. See docs/reliability.md.
"""

import argparse
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import recsys_data.contracts
from benchmarks.faults.cases import (
    clocks,
    collector,
    dagster,
    damage,
    disk,
    features,
    log,
    maintenance,
    memory,
    serving,
    snapshots,
    stream,
    training,
)
from benchmarks.faults.harness.processes import Child, kill_all
from benchmarks.faults.harness.result import Case, Harness, Result

HEAD = ("fault", "injections", "events sent", "lost", "doubled", "recovery s (median / max)")
# Cases, those that mostly wait first, with their share of the injections.
CASES: list[tuple[Case, float]] = [
    (dagster.kill_dagster, 0.05),
    (dagster.daemon_away, 0.03),
    (stream.kill_consumer, 1.0),
    (stream.kill_consumer_and_change, 1.0),
    (stream.kill_append, 10.0),
    (collector.kill_collector, 0.4),
    (stream.two_consumers, 0.2),
    (stream.zombie, 0.2),
    (stream.random_kill, 0.5),
    (stream.kill_first_consumer, 0.1),
    (stream.redelivery, 0.2),
    (disk.locked_catalog, 0.1),
    (disk.readonly_catalog, 0.1),
    (disk.full_disk, 0.3),
    (clocks.clock_goes_back, 0.1),
    (clocks.delivered_days_later, 0.1),
    (disk.removed_file, 0.02),
    (disk.unsynced, 0.05),
    (maintenance.kill_maintenance, 0.3),
    (maintenance.read_beside, 0.3),
    (snapshots.kill_snapshot, 0.5),
    (snapshots.kill_held, 0.3),
    (features.kill_features, 0.3),
    (training.kill_training, 0.3),
    (serving.kill_server, 0.3),
    (serving.kill_updater, 0.3),
    (log.log_cannot_be_written, 0.5),
    (log.log_cannot_be_read, 0.1),
    (log.zeros_in_log, 0.05),
    (memory.out_of_memory, 0.3),
    (memory.snapshot_out_of_memory, 0.2),
    (damage.damaged_lake, 0.2),
    (damage.damaged_cache, 0.1),
]
QUICK, FULL = 15, 200


def main() -> int:
    """Run the cases and print the table."""
    options = _options()
    parsed = recsys_data.contracts.load_contracts()
    recsys_data.contracts.load_contracts = lambda *folders: parsed
    folder = Path(tempfile.mkdtemp(prefix="recsys-faults-", dir=options.folder))
    injections = options.injections or (QUICK if options.quick else FULL)
    chosen = [(case, max(1, round(injections * share))) for case, share in CASES if options.only in case.__name__]
    print_row(HEAD)
    print_row(tuple("---" if number == 0 else "---:" for number in range(len(HEAD))))
    begun = time.monotonic()
    try:
        results = _run(chosen, folder, options)
    finally:
        kill_all()
    return _conclude(results, time.monotonic() - begun, folder)


def _run(cases: list[tuple[Case, int]], folder: Path, options: argparse.Namespace) -> list[Result]:
    """Run the cases, each in a process of its own and some at once, and print each row when it is known."""
    left, running, results = list(cases), {}, []
    while left or running:
        while left and len(running) < options.jobs:
            case, injections = left.pop(0)
            at = folder / case.__name__
            at.mkdir()
            harness = Harness(at, random.Random(f"{options.seed} {case.__name__}"), options.sabotage)
            child = Child(lambda c=case, h=harness, i=injections: _keep(c(h, i), h.folder), at / "output.txt")
            running[child] = case
        for child, case in list(running.items()):
            if child.poll() is not None:
                del running[child]
                results.append(_kept(child, case, folder / case.__name__))
                print_row(results[-1].cells)
        time.sleep(0.05)
    return results


def _keep(result: Result, folder: Path) -> None:
    (folder / "result").write_bytes(pickle.dumps(result))


def _kept(child: Child, case: Case, folder: Path) -> Result:
    if child.code:
        return Result(case.__name__, problems=[f"the case itself ended with {child.code}: {child.text()[-4000:]}"])
    return pickle.loads((folder / "result").read_bytes())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="each fault a few times, in a few minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--injections", type=int, help=f"times a consumer is killed; others in proportion ({FULL})")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--sabotage", choices=("fsync", "compare-and-set", "deduplication"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="cases at once (one per processor)")
    parser.add_argument("--folder", help="where platforms are made (default: the system's temporary folder)")
    return parser.parse_args()


def _conclude(results: list[Result], seconds: float, folder: Path) -> int:
    total = Result("all")
    for one in results:
        total.injections += one.injections
        total.sent += one.sent
        total.lost += one.lost
        total.doubled += one.doubled
        total.recoveries += one.recoveries
    print_row(total.cells)
    failed = [one for one in results if one.failed]
    for one in failed:
        for problem in one.problems or ["the fault never happened"]:
            sys.stdout.write(f"\n{one.fault}: {problem}\n")
    sys.stdout.write(f"\n{total.injections:,} injections in {seconds:,.0f} s, {len(failed)} faults not withstood\n")
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def print_row(cells: tuple[str, ...]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
