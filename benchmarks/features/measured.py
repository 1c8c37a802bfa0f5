"""One way of doing something, in a process of its own: seconds, CPU seconds and peak memory."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MARK = "measured: "


class Measurement(NamedTuple):
    """What a process used; `answer` is what the work returned."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    answer: float


def measure(work: Callable[[], float | None]) -> None:
    """Do the work in this process and print what it used, for `run` to read."""
    began, cpu = time.perf_counter(), time.process_time()
    answer = work()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    sys.stdout.write(MARK + json.dumps([seconds, used, peak_mb(), answer or 0.0]) + "\n")


def peak_mb() -> float:
    """The most memory that this process has used so far."""
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def run(command: Sequence[str | Path]) -> Measurement:
    """Run a command that ends in `measure`."""
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith(MARK))
    return Measurement(*json.loads(line.removeprefix(MARK)))


def in_turn(commands: Mapping[str, Sequence[str | Path]], repeat: int) -> dict[str, Measurement]:
    """Run each command `repeat` times, in turn and every other time backwards; medians, and the highest peak."""
    found: dict[str, list[Measurement]] = {name: [] for name in commands}
    for number in range(repeat):
        for name in list(commands)[:: 1 if number % 2 else -1]:
            found[name].append(run(commands[name]))
    return {name: summary(measured) for name, measured in found.items()}


def summary(measured: Sequence[Measurement]) -> Measurement:
    seconds, cpu = (statistics.median(one[place] for one in measured) for place in (0, 1))
    return Measurement(seconds, cpu, max(one.peak_mb for one in measured), measured[0].answer)
