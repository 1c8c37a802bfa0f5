"""Published results, reproduced through the platform: import -> log -> lake -> training set -> metrics.

    python -m benchmarks.published                  downloads the wheels that the data is in, with pip
    python -m benchmarks.published --wheels DIR     takes them from a folder

Prints what was published, ours and the difference; ends with 1 if one differs by more than its authors allow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.published import open_bandit, sar

HERE = Path(__file__).parent
# The log of Open Bandit ends on 1 December 2019; its last clicks are final after it.
CUTOFF = "2019-12-02"


@dataclass(frozen=True)
class Case:
    """A published result.

    Attributes:
        name: of the data set, for `recsys-data load`.
        training_set: declared beside this file.
        module: that reproduces the numbers.
        options: of `recsys-data training-set build`.
        tolerance: how much a number may differ, relative to the published one.
        reproduce: folder of the unpacked wheel, rows of the training set -> number -> (published, ours).
    """

    name: str
    training_set: str
    module: ModuleType
    options: list[str]
    tolerance: float
    reproduce: Callable[[Path, pa.Table], dict[str, tuple[float, float]]]


def _sar(wheel: Path, rows: pa.Table) -> dict[str, tuple[float, float]]:
    columns = {"event_id": "event_id", "user_id": "user_id", "item_id": "item_id"}
    columns |= {"timestamp": "timestamp", "label": "weight"}
    return sar.reproduce(rows.select(list(columns)).rename_columns(list(columns.values())))


def _open_bandit(wheel: Path, rows: pa.Table) -> dict[str, tuple[float, float]]:
    return open_bandit.reproduce(rows, open_bandit.read_prior(wheel))


CASES = (
    Case("open-bandit", "open_bandit", open_bandit, ["--cutoff", CUTOFF], 5e-7, _open_bandit),
    Case("recbole", "movielens_100k", sar, [], sar.TOLERANCE, _sar),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--wheels", type=Path, help="folder of the wheels; default: pip downloads them")
    options = parser.parse_args()
    failed = False
    line = "{:<52} {:>12} {:>12} {:>10}\n"
    sys.stdout.write(line.format("", "published", "ours", "difference"))
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            for name, (published, ours) in run(case, Path(folder), options.wheels).items():
                difference = ours / published - 1
                failed |= abs(difference) > case.tolerance
                shown = (f"{case.name}: {name}", f"{published:.6f}", f"{ours:.6f}", f"{difference:+.4%}")
                sys.stdout.write(line.format(*shown))
                sys.stdout.flush()
    return 1 if failed else 0


def run(case: Case, folder: Path, wheels: Path | None) -> dict[str, tuple[float, float]]:
    """Bring the data of a case through the platform in a folder of its own, and reproduce its numbers."""
    unpacked = folder / "wheel"
    with zipfile.ZipFile(_wheel(case.module.WHEEL, wheels, folder)) as archive:
        archive.extractall(unpacked)
    contracts = folder / "contracts"
    (contracts / "training_sets").mkdir(parents=True)
    declared = f"{case.training_set}.yaml"
    (contracts / "training_sets" / declared).write_bytes((HERE / declared).read_bytes())
    environment = {**os.environ, "RECSYS_DATA_DIR": str(folder / "data"), "RECSYS_DATA_CONTRACTS": str(contracts)}

    def platform(*arguments: str) -> None:
        command = [sys.executable, "-m", "recsys_data.cli", *arguments]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    platform("load", case.name, str(unpacked / case.module.DATA))
    platform("ingest", "--until-empty")
    platform("training-set", "build", case.training_set, "--known", "event_time", *case.options)
    (path,) = (folder / "data" / "training" / "sets" / case.training_set / "1").glob("*.parquet")
    return case.reproduce(unpacked, pq.read_table(path))


def _wheel(requirement: str, wheels: Path | None, folder: Path) -> Path:
    if wheels is None:
        wheels = folder / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), requirement]
        subprocess.run(command, check=True)
    name, _, version = requirement.partition("==")
    (found,) = wheels.glob(f"{name}-{version}-*.whl")
    return found


if __name__ == "__main__":
    sys.exit(main())
