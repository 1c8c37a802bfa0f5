"""From an event that the collector received to an answer that uses it: `python -m benchmarks.freshness --minutes 60`.

The ordinary `recsys-data up --no-demo` in a folder of its own, RATE simulated events a second to the collector, and
ANSWERS answers a second for others. Meanwhile new visitors, one every PROBE_SECONDS, ask, click on the first item of
their answer, and ask again every POLL_SECONDS (later, more rarely) until it is not in the answer any more, because it
was seen. The time runs from the collector's acknowledgement to the first answer without the item. All of it shares the
machine.

Prints quantiles, draws `freshness.png` into --folder, and ends with 1 if a claim does not hold.
"""

import argparse
import asyncio
import csv
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import msgspec

from benchmarks.http_client import HttpClient
from benchmarks.soak.__main__ import settle
from benchmarks.soak.processes import Platform

RATE, ANSWERS = 1000.0, 50.0
PROBE_SECONDS, POLL_SECONDS = 1.0, 0.05
# Of the time that a probe has waited; otherwise the more answers were asked for the later they come.
POLL_SHARE = 0.05
FIRST_EVENTS = 30_000
GIVE_UP_SECONDS = 60.0
# Processes fetch what they need in their first moments.
WARM_SECONDS = 30.0
CLAIMS = {"p95": 2.5, "p99": 5.0}
SHOWN, PROBED = 12, 3
HEAD = ("seconds", "delay_s")


class Probes:
    """Visitors who click, and the seconds until their answers know of it.

    Attributes:
        found: seconds since the start, and the delay; None: it was given up.
        times: of the answers of other visitors.
        failed: answers that there were none of, and why.
    """

    def __init__(self, collector: HttpClient, serving: HttpClient) -> None:
        self.found: list[tuple[float, float | None]] = []
        self.times: list[float] = []
        self.failed: dict[str, int] = {}
        self._collector = collector
        self._serving = serving
        self._begun = time.monotonic()

    async def probe(self) -> None:
        """One visitor."""
        visitor = f"probe-{uuid4().hex}"
        items = await self._answer({"anonymous_id": visitor, "session_id": visitor, "n": PROBED})
        if not items:
            return
        event = {
            "event_id": uuid4().hex,
            "type": "click",
            "anonymous_id": visitor,
            "session_id": visitor,
            "item_id": items[0],
            "event_ts": datetime.now(UTC).isoformat(),
        }
        try:
            status, _ = await self._collector.post("/v1/events", event)
        except (OSError, EOFError) as error:
            self._note(f"collector: {type(error).__name__}")
            return
        received = time.monotonic()
        if status != 200:
            self._note(f"the collector answered {status}")
            return
        while (waited := time.monotonic() - received) < GIVE_UP_SECONDS:
            await asyncio.sleep(max(POLL_SECONDS, waited * POLL_SHARE))
            again = await self._answer({"anonymous_id": visitor, "session_id": visitor, "n": PROBED})
            if again and items[0] not in again:
                self.found.append((received - self._begun, time.monotonic() - received))
                return
        self.found.append((waited, None))

    async def ask(self, number: int) -> None:
        """An answer for one of the simulated visitors."""
        begun = time.monotonic()
        if await self._answer({"user_id": f"u{number % 5000:05d}", "n": SHOWN}):
            self.times.append(time.monotonic() - begun)

    async def _answer(self, request: dict[str, Any]) -> list[str]:
        try:
            status, answer = await self._serving.post("/v1/recommend", request)
        except (OSError, EOFError) as error:
            self._note(f"serving: {type(error).__name__}")
            return []
        if status != 200:
            self._note(f"serving answered {status}")
            return []
        return [one["item_id"] for one in msgspec.json.decode(answer)["items"]]

    def _note(self, why: str) -> None:
        self.failed[why] = self.failed.get(why, 0) + 1


async def watch(platform: Platform, minutes: float, answers: float) -> Probes:
    """Ask and probe at steady rates, whatever the answers take."""
    async with HttpClient(platform.collector) as collector, HttpClient(platform.serving) as serving:
        probes, running, begun, asked, probed = Probes(collector, serving), set(), time.monotonic(), 0, 0
        while (now := time.monotonic() - begun) < minutes * 60:
            due = []
            while asked < now * answers:
                due.append(probes.ask(asked))
                asked += 1
            while probed < now / PROBE_SECONDS:
                due.append(probes.probe())
                probed += 1
            for one in due:
                task = asyncio.create_task(one)
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(0.01)
        # Each ends by itself: probes give up, and answers have a time limit.
        if running:
            await asyncio.wait(running)
        return probes


def run(platform: Platform, options: argparse.Namespace) -> int:
    """Start everything, measure, and print; 1 if a claim does not hold."""
    platform.start()
    first = ("simulate", "--events", str(FIRST_EVENTS), "--days", "1", "--seed", "1", "--to", platform.collector)
    if platform.command(*first, name="first").wait():
        raise RuntimeError((platform.folder / "first.log").read_text()[-3000:])
    train(platform)
    traffic = platform.command("simulate", "--rate", str(options.rate), "--to", platform.collector, name="traffic")
    time.sleep(WARM_SECONDS)
    probes = asyncio.run(watch(platform, options.minutes, options.answers))
    if traffic.poll() is not None:
        raise RuntimeError(f"the traffic ended: {(platform.folder / 'traffic.log').read_text()[-3000:]}")
    platform.stop(traffic)
    return report(probes, options, platform.folder)


def train(platform: Platform) -> None:
    """Register a model as soon as there are events in the lake to learn from."""
    deadline = time.monotonic() + 180
    while True:
        name = f"train-{time.monotonic_ns()}"
        settle(platform)
        if platform.command("train", "popular", name=name).wait() == 0:
            return
        if time.monotonic() > deadline:
            raise RuntimeError((platform.folder / f"{name}.log").read_text()[-3000:])
        time.sleep(5)


def report(probes: Probes, options: argparse.Namespace, folder: Path) -> int:
    """Print quantiles and draw them; 1 if a claim does not hold."""
    with (folder / "freshness.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *probes.found])
    delays = sorted(delay for _, delay in probes.found if delay is not None)
    lost = len(probes.found) - len(delays)
    if len(delays) < 20 or len(probes.times) < 20:
        click.echo(f"Too few answers: {len(delays)} probes, {len(probes.times)} answers; {probes.failed}")
        return 1
    quantiles = statistics.quantiles(delays, n=100, method="inclusive")
    shown = {"p50": quantiles[49], "p95": quantiles[94], "p99": quantiles[98], "most": delays[-1]}
    times = statistics.quantiles(probes.times, n=100, method="inclusive")
    click.echo(
        f"{options.minutes:g} minutes, {options.rate:g} events/s, {options.answers:g} answers/s beside the probes\n"
        f"{len(delays)} probes, received to used in an answer: "
        + ", ".join(f"{name} {value:.2f} s" for name, value in shown.items())
        + f"; {lost} not within {GIVE_UP_SECONDS:g} s\n"
        f"{len(probes.times):,} answers to others: p50 {times[49] * 1000:.1f} ms, p99 {times[98] * 1000:.1f} ms; "
        f"failed: {json.dumps(probes.failed)}"
    )
    click.echo(f"Picture: {draw(probes, folder)}")
    missed = [f"{name} <= {most} s" for name, most in CLAIMS.items() if shown[name] > most]
    if missed or lost:
        click.echo(f"Does not hold: {', '.join(missed) or 'every event is used'}")
    return 1 if missed or lost else 0


def draw(probes: Probes, folder: Path) -> Path:
    """Each probe over time, and the claims."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    points = sorted((at / 60, delay) for at, delay in probes.found if delay is not None)
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    axes.plot([at for at, _ in points], [delay for _, delay in points], ".", ms=2, color="C0", alpha=0.5)
    for name, most in CLAIMS.items():
        axes.axhline(most, lw=0.7, ls=":", color="0.4")
        axes.annotate(f"goal of the {name}", (0, most), xycoords=("axes fraction", "data"), va="bottom", fontsize=7)
    top = max(CLAIMS["p99"], max(delay for _, delay in points)) * 1.1
    axes.set(title="from the receipt of a click to an answer that uses it, s", xlabel="minutes", ylim=(0, top))
    path = folder / "freshness.png"
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=RATE, help="events a second")
    parser.add_argument("--answers", type=float, default=ANSWERS, help="answers a second, beside the probes")
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: a temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="recsys-freshness-"))
    folder.mkdir(parents=True, exist_ok=True)
    platform = Platform(folder)
    try:
        return run(platform, options)
    finally:
        platform.stop_all()


if __name__ == "__main__":
    sys.exit(main())
