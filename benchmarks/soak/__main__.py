"""An hour of the ordinary platform under steady traffic: freshness, memory, commit times, disk, and nothing lost.

    python -m benchmarks.soak --minutes 60 --rate 2000

Data flow: `recsys-data simulate` -> collector -> event log -> consumers that the sensor starts -> lake, all started by
`recsys-data up --no-demo` in a folder of its own, with maintenance and checks on their schedules. Samples are written
to CSV files in `--folder`. At the end the traffic is stopped, the log is consumed to its end, and acknowledged events
are compared with the ledger and with the rows. Prints tables and ends with 1 if a claim does not hold. See
docs/benchmarks.md.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.soak.plot import draw
from benchmarks.soak.processes import Platform, appended
from benchmarks.soak.report import Report
from benchmarks.soak.samples import Samples

SAMPLE_SECONDS = 10.0
SETTLE_SECONDS = 120.0


def main() -> int:
    """Run it and print what was found."""
    options = _options()
    if options.report:
        return show(options.folder)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="recsys-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    platform = Platform(folder)
    try:
        found = run(platform, options)
    finally:
        platform.stop_all()
    (folder / "found.json").write_text(json.dumps(found, indent=1))
    code = show(folder)
    if options.folder is None and not code:
        shutil.rmtree(folder)
    return code


def show(folder: Path) -> int:
    """Print the report and draw the picture; 1 if a claim does not hold."""
    report = Report(folder)
    code = report.show()
    sys.stdout.write(f"\nPicture: {draw(report)}\n")
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="lines a second")
    parser.add_argument("--folder", type=Path, help="where to keep everything (default: a temporary folder)")
    parser.add_argument("--report", action="store_true", help="only show what is in --folder")
    options = parser.parse_args()
    if options.report and not options.folder:
        parser.error("--report needs --folder")
    return options


def run(platform: Platform, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, watch, and stop; returns what was counted."""
    up = platform.start()
    truth = platform.folder / "truth.json"
    traffic = platform.command(
        "simulate", "--rate", str(options.rate), "--to", platform.collector, "--truth", str(truth), name="traffic"
    )
    samples = Samples(platform, platform.folder)
    watch(samples, options, [up, traffic])
    platform.stop(traffic)
    sent = int(re.findall(r"Sent ([\d,]+) lines", (platform.folder / "traffic.log").read_text())[-1].replace(",", ""))
    settle(platform)
    samples.take()
    found: dict[str, Any] = {
        "minutes": options.minutes,
        "rate": options.rate,
        "begun": samples.begun,
        "sent": sent,
        "appended": appended(platform.collector),
        "runs": platform.runs(),
        "reported": platform.reported(),
        "truth": json.loads(truth.read_text()) if truth.exists() else None,
    }
    found["up_exit"] = platform.stop(up)
    found["ingest_exit"] = platform.command("ingest", "--until-empty", name="ingest").wait()
    found["status"] = status(platform)
    return found


def watch(samples: Samples, options: argparse.Namespace, needed: list["subprocess.Popen[bytes]"]) -> None:
    """Sample until the time is over.

    Raises:
        RuntimeError: one of the processes that are needed ended.
    """
    while (now := time.time() - samples.begun) < options.minutes * 60:
        for process in needed:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended with {process.returncode} after {now:.0f} s")
        samples.take()
        time.sleep(max(0.1, samples.begun + samples.number * SAMPLE_SECONDS - time.time()))


def settle(platform: Platform) -> None:
    """Wait for the consumer that lives to take what is left."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while status(platform)["log"]["lag_events"] and time.monotonic() < deadline:
        time.sleep(1.0)


def status(platform: Platform) -> dict[str, Any]:
    """What `recsys-data status --json` says."""
    name = f"status-{time.monotonic_ns()}"
    code = platform.command("status", "--json", name=name).wait()
    text = (platform.folder / f"{name}.log").read_text()
    if code:
        raise RuntimeError(f"status ended with {code}: {text[-2000:]}")
    return json.loads(text[text.index("{") :])


if __name__ == "__main__":
    sys.exit(main())
