"""Kill, stop and starve real processes of the platform, and count what is lost, doubled or does not recover.

    python -m benchmarks.faults [--quick] [--seed N] [--injections N] [--only TEXT] [--sabotage PROTECTION]

Prints a table and ends with 1 if anything is wrong. Each platform lies in a folder of its own, on loopback; one that
is found wrong is kept for a look. `--sabotage` switches a protection off, upon which the harness has to fail.
Linux only. See docs/reliability.md.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import recsys_data.contracts
from benchmarks import (
    faults_clocks,
    faults_collector,
    faults_damage,
    faults_disk,
    faults_log,
    faults_memory,
    faults_snapshots,
    faults_stream,
    faults_upkeep,
)
from benchmarks.faults_processes import kill_all
from benchmarks.faults_result import Case, Harness, Result

HEAD = ("fault", "injections", "events sent", "lost", "doubled", "recovery s (median / max)")
# Cases with their share of the injections.
CASES: list[tuple[Case, float]] = [
    (faults_stream.kill_drain, 1.0),
    (faults_stream.kill_append, 15.0),
    (faults_collector.kill_collector, 0.4),
    (faults_stream.two_drains, 0.15),
    (faults_stream.zombie, 0.15),
    (faults_stream.random_kill, 0.5),
    (faults_stream.kill_first_drain, 0.1),
    (faults_stream.redelivery, 0.1),
    (faults_disk.locked_catalog, 0.05),
    (faults_disk.readonly_catalog, 0.05),
    (faults_disk.full_disk, 0.1),
    (faults_clocks.clock_goes_back, 0.05),
    (faults_clocks.delivered_days_later, 0.1),
    (faults_disk.removed_file, 0.02),
    (faults_disk.unsynced, 0.05),
    (faults_upkeep.kill_upkeep, 0.3),
    (faults_upkeep.read_beside, 0.3),
    (faults_snapshots.kill_snapshot, 0.5),
    (faults_snapshots.kill_held, 0.3),
    (faults_log.log_cannot_be_written, 0.5),
    (faults_log.log_cannot_be_read, 0.1),
    (faults_log.zeros_in_log, 0.05),
    (faults_memory.out_of_memory, 0.3),
    (faults_memory.snapshot_out_of_memory, 0.2),
    (faults_damage.damaged_lake, 0.2),
    (faults_damage.damaged_cache, 0.1),
]
QUICK, FULL = 20, 200


def main() -> int:
    """Run the cases and print the table."""
    options = _options()
    parsed = recsys_data.contracts.load_contracts()
    recsys_data.contracts.load_contracts = lambda *folders: parsed
    folder = Path(tempfile.mkdtemp(prefix="recsys-faults-", dir=options.folder))
    harness = Harness(folder, random.Random(options.seed), options.sabotage)
    injections = options.injections or (QUICK if options.quick else FULL)
    chosen = [(case, share) for case, share in CASES if options.only in case.__name__]
    print_row(HEAD)
    print_row(tuple("---" if number == 0 else "---:" for number in range(len(HEAD))))
    results = []
    begun = time.monotonic()
    try:
        for case, share in chosen:
            results.append(case(harness, max(1, round(injections * share))))
            print_row(results[-1].cells)
    finally:
        kill_all()
    return _conclude(results, time.monotonic() - begun, folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="each fault a few times, in a few minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--injections", type=int, help=f"how often the drain is killed; others in proportion ({FULL})")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--sabotage", choices=("fsync", "compare-and-set", "deduplication"))
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
