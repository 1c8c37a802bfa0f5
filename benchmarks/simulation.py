"""Run seeded schedules of faults on a simulated machine, and look for what is lost, doubled, forged or stuck.

    python -m benchmarks.simulation --seeds 300 [--first N] [--jobs N] [--sabotage PROTECTION]
    python -m benchmarks.simulation --seed 91

One seed is one schedule: what is done, edited and delivered, and where the power fails, a process dies, the disk is
full. The same seed is always the same run. A seed that shows something is made smaller before it is printed. Ends with
1 if anything was found. Linux only; needs what `pip install '.[test]'` installs. See docs/reliability.md.
"""

import argparse
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from recsys_data_tests.simulation.product import SABOTAGES
from recsys_data_tests.simulation.schedule import Result, Schedule, draw, run, shrink

# In memory: no sync waits for a disk, and inode numbers are never used twice.
MEMORY = Path("/dev/shm")
SHRUNK = 5
console = Console(highlight=False)


def main() -> int:
    """Run the seeds, print what was found and a table."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts would be gone through in another order in every process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.simulation", *sys.argv[1:]])
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # What is imported stays; to look through it again and again takes a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    if options.seed is not None:
        with _place() as base:
            results = [run(draw(options.seed), base, options.sabotage)]
        _print_run(results[0])
    else:
        seeds = range(options.first, options.first + options.seeds)
        results = list(_run_all(seeds, options.jobs, options.sabotage))
    failed = [one for one in results if one.findings]
    for one in failed[:SHRUNK]:
        with _place() as base:
            _explain(one, base, options.sabotage)
    _print_table(results, time.monotonic() - begun)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, step by step")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="processes (one per processor)")
    parser.add_argument("--sabotage", choices=SABOTAGES, help="switch a protection off; it has to be missed")
    return parser.parse_args()


@contextmanager
def _place() -> Iterator[Path]:
    """A folder of this process's own."""
    with tempfile.TemporaryDirectory(prefix="recsys-simulation-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def _run_all(seeds: range, jobs: int, sabotage: str | None) -> Iterable[Result]:
    """Results in the order of their ends."""
    # Forked, so that everything is imported once.
    context = multiprocessing.get_context("fork")
    with _place() as place, context.Pool(min(jobs, len(seeds)), _begin) as pool:
        done = pool.imap_unordered(partial(_run_one, place, sabotage), seeds)
        for one in track(done, f"{len(seeds):,} seeds", len(seeds), console=console, disable=not console.is_terminal):
            if one.findings:
                console.print(f"Seed {one.schedule.seed} shows: {_kinds(one)}.", markup=False)
            yield one


def _begin() -> None:
    """Let the pool end this process as ever."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_one(place: Path, sabotage: str | None, seed: int) -> Result:
    base = place / str(os.getpid())
    base.mkdir(exist_ok=True)
    return run(draw(seed), base, sabotage)


def _explain(result: Result, base: Path, sabotage: str | None) -> None:
    """Print the smallest schedule that shows what the result shows first, and how to repeat it."""
    kind = result.findings[0].kind

    def fails(schedule: Schedule) -> bool:
        return any(one.kind == kind for one in run(schedule, base, sabotage).findings)

    smallest = run(shrink(result.schedule, fails), base, sabotage)
    off = f" --sabotage {sabotage}" if sabotage else ""
    console.rule(f"seed {result.schedule.seed}: {_kinds(result)}")
    console.print(f"python -m benchmarks.simulation --seed {result.schedule.seed}{off}\n", markup=False)
    console.print(f"The smallest schedule that shows it ({result.schedule.deployment}):", markup=False)
    _print_steps(smallest)
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()


def _print_run(result: Result) -> None:
    console.print(f"{result.schedule.deployment}", markup=False)
    _print_steps(result)


def _print_steps(result: Result) -> None:
    for number, line in enumerate(result.trace, 1):
        console.print(f"  {number:2d}. {line}", markup=False, soft_wrap=True)
    for finding in result.findings:
        console.print(f"  => {finding.kind}: {finding.detail}", markup=False, soft_wrap=True)


def _kinds(result: Result) -> str:
    return ", ".join(sorted({one.kind for one in result.findings})) or "nothing"


def _print_table(results: list[Result], seconds: float) -> None:
    faults, operations, findings = Counter[str](), Counter[str](), Counter[str]()
    for one in results:
        faults += one.faults
        operations += one.operations
        findings.update({finding.kind for finding in one.findings})
    table = Table("", "")
    table.add_row("seeds", f"{len(results):,}")
    table.add_row("steps", f"{sum(len(one.trace) for one in results):,}")
    table.add_row("operations of the disk", f"{operations.total():,}")
    for kind, count in sorted(faults.items()):
        table.add_row(f"fault: {kind}", f"{count:,}")
    for kind, count in sorted(findings.items()):
        table.add_row(f"seeds that show: {kind}", f"{count:,}")
    table.add_row("seconds", f"{seconds:,.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
