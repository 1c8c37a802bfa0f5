"""What a soak found: tables, the claims that must hold; all from the files in its folder."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

WINDOW_SECONDS = 600
WARM_SECONDS = 300
FRESH_P95_SECONDS = 2.0
# Growth that would fill a machine within days.
STEEP_MB_PER_HOUR = 40.0
SERVERS = ("collector", "webserver", "daemon", "code server", "up")
SLOWER = 1.5
DECILES = [f"q{n:02d}_s" for n in range(5, 100, 10)]


class Report:
    """The figures of one soak."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        self.processes = pd.read_csv(folder / "processes.csv")
        self.commits = pd.read_csv(folder / "commits.csv")
        self.storage = pd.read_csv(folder / "storage.csv")
        self.seconds = self.found["minutes"] * 60
        self.problems: list[str] = []

    def show(self) -> int:
        """Print everything; 1 if a claim does not hold."""
        self._freshness()
        self._memory()
        self._commit_times()
        self._storage()
        self._account()
        for problem in self.problems:
            _print(f"FAILED: {problem}")
        return 1 if self.problems else 0

    def of(self, what: str) -> pd.DataFrame:
        """Commits as `what` reported of them, while traffic ran."""
        return self.commits.loc[(self.commits.what == what) & (self.commits.seconds < self.seconds)]

    def windows(self) -> list[tuple[float, float]]:
        starts = np.arange(0, self.seconds, WINDOW_SECONDS)
        return [(float(start), min(float(start) + WINDOW_SECONDS, self.seconds)) for start in starts]

    def _freshness(self) -> None:
        rows = []
        ledger, looked = self.of("ledger"), self.of("rows")
        for start, end in self.windows():
            some = within(ledger, start, end)
            p50, p95 = quantiles(some)
            seen50, seen95 = quantiles(within(looked, start, end))
            gap = some.seconds.diff().max()
            rows.append([
                f"{start / 60:.0f}-{end / 60:.0f}", f"{len(some):,}", f"{some.events.sum():,.0f}", f"{p50:.2f}",
                f"{p95:.2f}", f"{seen50:.2f}", f"{seen95:.2f}", f"{some[DECILES[-1]].max():.1f}", f"{gap:.1f}",
            ])  # fmt: skip
            # The first consumer has to start, and takes what came meanwhile.
            if p95 > FRESH_P95_SECONDS and start:
                self.problems.append(f"p95 freshness {p95:.2f} s in minutes {rows[-1][0]}")
        print_table(
            ("minutes", "commits", "events", "p50 s", "p95 s", "rows p50 s", "rows p95 s", "worst s", "longest gap s"),
            rows,
        )

    def _memory(self) -> None:
        rows = []
        for role, some in self.processes[self.processes.seconds < self.seconds].groupby("role"):
            # Of several processes of a role (code servers, consumers that hand over), each counts for itself.
            most = some.groupby("seconds").rss_mb.max()
            late = most[most.index > min(WARM_SECONDS, self.seconds / 4)]
            first, last = (late[late.index < self.seconds / 2], late[late.index >= self.seconds / 2])
            slope = np.polyfit(late.index, late, 1)[0] * 3600 if len(late) > 20 else float("nan")
            rows.append([
                str(role), f"{some.pid.nunique()}", f"{first.median():.0f}", f"{last.median():.0f}",
                f"{most.max():.0f}", f"{slope:+.1f}",
            ])  # fmt: skip
            if role in SERVERS and slope > STEEP_MB_PER_HOUR:
                self.problems.append(f"{role} grows by {slope:.0f} MB an hour")
        print_table(("role", "processes", "MB first half", "MB second half", "most MB", "MB per hour"), rows)

    def _commit_times(self) -> None:
        tables, flushes = self.of("tables"), self._flushes()
        rows = []
        for start, end in self.windows():
            some, reported = within(tables, start, end)["q05_s"], within(flushes, start, end)
            each = reported.total.sum() / max(reported.commits.sum(), 1)
            rows.append([
                f"{start / 60:.0f}-{end / 60:.0f}", f"{some.median() * 1000:.0f}", f"{some.quantile(0.95) * 1000:.0f}",
                f"{each * 1000:.0f}",
            ])  # fmt: skip
        print_table(("minutes", "tables p50 ms", "tables p95 ms", "whole flush, mean ms"), rows)
        if len(rows) > 1 and float(rows[-1][1]) > SLOWER * float(rows[0][1]):
            self.problems.append(f"commits take {rows[-1][1]} ms in the end, {rows[0][1]} ms in the beginning")

    def _flushes(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.found["reported"], columns=["seconds", "commits", "total"])
        frame.seconds -= self.found["begun"]
        return frame

    def _storage(self) -> None:
        rows = []
        for start, _ in [*self.windows(), (self.seconds, 0.0)]:
            at = self.storage.iloc[(self.storage.seconds - start).abs().argmin()]
            rows.append([
                f"{at.seconds / 60:.0f}", f"{at.lag_events:,.0f}", f"{at.live_files:,.0f}",
                f"{at.live_bytes / 1e6:,.0f}", f"{at.snapshots:,.0f}", f"{at.lake_files:,.0f}",
                f"{at.lake_bytes / 1e6:,.0f}", f"{at.log_bytes / 1e6:,.0f}", f"{at.dagster_bytes / 1e6:,.1f}",
            ])  # fmt: skip
        head = ("minute", "lag", "live files", "live MB", "snapshots", "lake files", "lake MB", "log MB", "Dagster MB")
        print_table(head, rows)

    def _account(self) -> None:
        found, ledger, log = self.found, self.found["status"]["ledger"], self.found["status"]["log"]
        outcomes = ledger["accepted"] + ledger["duplicates"] + ledger["dead_letters"]
        truth = found["truth"] or {}
        rows = [
            ("lines sent and acknowledged", found["sent"]),
            ("events in the log by the collector", found["appended"]),
            ("read", ledger["read"]),
            *((name.replace("_", " "), ledger[name]) for name in ("accepted", "duplicates", "dead_letters")),
            ("left in the log", log["lag_events"]),
        ]
        planted = {**truth, "dead_letters": sum(truth.get("dead_letters", {}).values())}
        names = {"lines sent and acknowledged": "events", "dead letters": "dead_letters"}
        print_table(
            ("", "events", "as planted"),
            [[name, f"{n:,}", f"{planted[k]:,}" if truth and (k := names.get(name, name)) in planted else ""]
             for name, n in rows],
        )  # fmt: skip
        self._require(found["appended"] == ledger["read"] == outcomes, "events are lost or doubled")
        self._require(ledger["balanced"], "the ledger is not balanced")
        self._require(not log["lag_events"], "events are left in the log")
        if truth:
            self._reconcile(truth, ledger)
        bad = [run for run in found["runs"] if run["status"] not in ("SUCCESS", "STARTED")]
        self._require(not bad, f"{len(bad)} runs did not succeed: {bad[:3]}")
        self._require(found["up_exit"] in (0, 143) and not found["ingest_exit"], f"exit codes {found['up_exit']}")
        done = [run["jobName"] for run in found["runs"]]
        _print(
            f"\nruns: {done.count('drain_event_log')} consumers, {done.count('upkeep')} maintenance runs, "
            f"{done.count('check_streams')} times checks"
        )

    def _reconcile(self, truth: dict[str, Any], ledger: dict[str, int]) -> None:
        """Compare with what the traffic planted, whose truth is that of lines without a collector.

        The collector skips empty lines, and corrects a time of long ago by the client's clock.
        """
        planted, by_reason = truth["dead_letters"], self.found["status"]["dead_letters_by_reason"]
        less = {name: planted.get(name, 0) - by_reason.get(name, 0) for name in planted.keys() | by_reason.keys()}
        empty, corrected = less.pop("malformed_json", 0), less.pop("event_before_first_day", 0)
        self._require(truth["events"] == self.found["sent"], "the truth is not that of what was sent")
        self._require(self.found["sent"] - self.found["appended"] == empty >= 0, "lines are lost at the door")
        self._require(ledger["accepted"] - truth["accepted"] == corrected >= 0, "accepted is not what was planted")
        self._require(ledger["duplicates"] == truth["duplicates"], "duplicates are not what was planted")
        self._require(not any(less.values()), f"dead letters are not what was planted: {less}")
        _print(f"\n{empty} empty lines skipped, {corrected} times of long ago corrected by the collector")

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)


def within(frame: pd.DataFrame, start: float, end: float) -> pd.DataFrame:
    return frame.loc[(frame.seconds >= start) & (frame.seconds < end)]


def quantiles(commits: pd.DataFrame) -> tuple[float, float]:
    """p50 and p95 over all events of the commits, each decile standing for a tenth of its commit's events."""
    if commits.empty:
        return float("nan"), float("nan")
    values = commits[DECILES].to_numpy()
    weights = np.repeat(commits.events.to_numpy()[:, None] / len(DECILES), len(DECILES), axis=1)
    order = values.ravel().argsort()
    reached = weights.ravel()[order].cumsum() / weights.sum()
    pick: Callable[[float], float] = lambda share: float(values.ravel()[order][np.searchsorted(reached, share)])  # noqa: E731
    return pick(0.5), pick(0.95)


def print_table(head: tuple[str, ...], rows: list[list[str]]) -> None:
    marks = ["---" if number == 0 else "---:" for number in range(len(head))]
    _print("")
    for cells in (head, marks, *rows):
        _print(f"| {' | '.join(cells)} |")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
