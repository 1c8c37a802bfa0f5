"""What a training set and the models on it cost.

    python -m benchmarks.training set --events 10000000    interactions -> rows, negatives, 30 features, files
    python -m benchmarks.training models                   each baseline fitted on a million interactions

Ends with 1 if a goal is missed.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.training import models, sets


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("set", help=(sets.__doc__ or "").partition("\n")[0])
    command.add_argument("--events", type=int, default=1_000_000)
    command.add_argument("--repeat", type=int, default=1)
    command.set_defaults(run=sets.compare)
    command = commands.add_parser("models", help=(models.__doc__ or "").partition("\n")[0])
    command.add_argument("--interactions", type=int, default=1_000_000)
    command.add_argument("--users", type=int, default=100_000)
    command.add_argument("--items", type=int, default=20_000)
    command.add_argument("--model", action="append", choices=models.GOAL_SECONDS, help="only these")
    command.set_defaults(run=models.compare)
    options = parser.parse_args()
    problems = options.run(options)
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
