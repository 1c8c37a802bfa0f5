"""What computing features costs, and whether it is right.

    python -m benchmarks.features pit        the point-in-time join, against the bare joins of DuckDB and Feast
    python -m benchmarks.features windows    aggregates over four windows, written to a lake
    python -m benchmarks.features oracle     features of public data sets, against plain Python over their files

Ends with 1 if a goal is missed.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.features import oracle, pit, windows


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.features", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pit", help=(pit.__doc__ or "").partition("\n")[0])
    command.add_argument("--rows", type=int, default=1_000_000, help="of the spine")
    command.add_argument("--repeat", type=int, default=3)
    command.add_argument("--no-peers", action="store_true", help="leave Feast out")
    command.set_defaults(run=pit.compare)
    command = commands.add_parser("windows", help=(windows.__doc__ or "").partition("\n")[0])
    command.add_argument("--events", type=int, default=1_000_000)
    command.add_argument("--repeat", type=int, default=1)
    command.set_defaults(run=windows.compare)
    command = commands.add_parser("oracle", help=(oracle.__doc__ or "").partition("\n")[0])
    command.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    command.add_argument("--pairs", type=int, default=10_000, help="of items and moments")
    command.set_defaults(run=oracle.compare)
    options = parser.parse_args()
    problems = options.run(options)
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
