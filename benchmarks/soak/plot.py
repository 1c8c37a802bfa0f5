"""The picture of a soak: freshness, memory, commit time and storage over its minutes."""

from pathlib import Path

from benchmarks.soak.report import Report

GREY = "0.75"
ROLES = ("collector", "webserver", "daemon", "consumer run", "other run")
ROLLING = 30


def draw(report: Report) -> Path:
    """Draw four panels to `soak.svg` in the soak's folder."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "soak"})
    figure, ((fresh, memory), (commits, disk)) = plt.subplots(2, 2, figsize=(9, 5), layout="constrained")
    ledger, tables = report.of("ledger"), report.of("tables")
    fresh.plot(ledger.seconds / 60, ledger.q95_s, lw=0.4, color=GREY)
    for name, label in (("q95_s", "p95"), ("q45_s", "p50")):
        fresh.plot(ledger.seconds / 60, ledger[name].rolling(ROLLING).median(), lw=1, label=label)
    fresh.set(title="received to queryable, s", ylim=(0, max(3.0, ledger.q95_s.quantile(0.995) * 1.2)))
    for role in ROLES:
        some = report.processes[report.processes.role == role].groupby("seconds").rss_mb.max()
        memory.plot(some.index / 60, some, lw=1, marker="." if len(some) < ROLLING else "", ms=2, label=role)
    memory.set(title="resident memory, MB", ylim=(0, None))
    commits.plot(tables.seconds / 60, tables.q05_s * 1000, ".", ms=1, color=GREY)
    commits.plot(tables.seconds / 60, tables.q05_s.rolling(ROLLING).median() * 1000, lw=1, label="median of 30")
    commits.set(title="first to last table of a commit, ms", ylim=(0, tables.q05_s.quantile(0.99) * 1500))
    storage = report.storage
    for name, label in (("log_bytes", "log"), ("lake_bytes", "lake"), ("dagster_bytes", "Dagster")):
        disk.plot(storage.seconds / 60, storage[name] / 1e6, lw=1, label=label)
    disk.set(title="on disk, MB", ylim=(0, None))
    for axes in (fresh, memory, commits, disk):
        for run in report.found["runs"]:
            if run["jobName"] == "upkeep" and run["startTime"]:
                axes.axvline((run["startTime"] - report.found["begun"]) / 60, lw=0.4, ls=":", color="0.5")
        axes.set(xlim=(0, report.found["minutes"]))
        axes.legend(frameon=False, fontsize=7)
    for axes in (commits, disk):
        axes.set_xlabel("minutes (dotted: maintenance)")
    path = report.folder / "soak.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
