"""Checks of the machine: disk, open files, installed packages, keys, Dagster's own storage. No contract is needed."""

import importlib.metadata
import os
import platform
import resource
import shutil
import tempfile
import time
from pathlib import Path

from recsys_data.monitoring.doctor.findings import Finding, ok, problem, warning
from recsys_data.settings import Settings, variable
from recsys_data.storage.guard import landlock

GIB = 1024**3
LEAST_FREE, LOW_FREE = 1 * GIB, 5 * GIB
LEAST_INODES = 10_000
OPEN_FILES = 1024
LARGE_STORAGE = 5 * GIB
WALK_SECONDS = 5.0
SHOWN = ("dagster", "duckdb", "pyarrow", "pyiceberg", "sqlalchemy")


def state_folder(settings: Settings) -> list[Finding]:
    """Whether the state folder can be written, and how much space there is."""
    folder = settings.data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        advice = "Correct its permissions or its disk, or choose another folder with RECSYS_DATA_DIR."
        return [problem("state folder", f"{there} cannot be written: {error.strerror}", advice)]
    found = f"{folder} can be written" if there == folder else f"{folder} is not there yet; it is made at first use"
    return [ok("state folder", found), _space(there)]


def _space(folder: Path) -> Finding:
    usage, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    found = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.0f}"
    advice = "Free space, move RECSYS_DATA_DIR to a larger disk, or lower RECSYS_DATA_LOG_RETENTION_HOURS."
    if usage.free < LEAST_FREE:
        return problem("disk space", found, advice)
    if inodes.f_files and inodes.f_favail < LEAST_INODES:
        return warning("disk space", f"{found}, but only {inodes.f_favail:,} more files", advice)
    return warning("disk space", found, advice) if usage.free < LOW_FREE else ok("disk space", found)


def open_files(settings: Settings) -> list[Finding]:
    """Whether queries may open as many files as there are."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        advice = f"Raise it: ulimit -n {4 * OPEN_FILES}, or LimitNOFILE of the service."
        return [warning("open files", f"a process may open {soft:,}; expected {OPEN_FILES:,} or more", advice)]
    return [ok("open files", f"a process may open {'any number' if soft == resource.RLIM_INFINITY else f'{soft:,}'}")]


def write_keys(settings: Settings) -> list[Finding]:
    """Whether strangers can write. Without keys the collector listens on loopback and refuses anything else."""
    keys = len(settings.keys)
    if keys:
        return [ok("write keys", f"{keys} set; clients must present one")]
    return [
        ok("write keys", "none set: the collector listens on loopback only, and needs RECSYS_DATA_WRITE_KEYS beyond it")
    ]


def privacy(settings: Settings) -> list[Finding]:
    """Whether other users of this machine can read what people did."""
    stored = [folder for folder in (settings.log_dir, settings.lake_dir) if folder.is_dir()]
    reached = all(
        path.stat().st_mode & 0o001 for path in (settings.data_dir, *settings.data_dir.parents) if path.is_dir()
    )
    readable = [str(folder) for folder in stored if reached and folder.stat().st_mode & 0o005]
    if readable:
        advice = f"chmod -R o= {settings.data_dir}, and start what writes there, Dagster too, with `umask 027`."
        return [warning("privacy", f"every user of this machine can read {' and '.join(readable)}", advice)]
    return [ok("privacy", "other users of this machine cannot read events and tables")]


def query_guard(settings: Settings) -> list[Finding]:
    """What confines `recsys-data sql`. Without Landlock its allow-list and DuckDB's own settings remain."""
    version = landlock.available()
    listed = "only listed functions and the datasets' own files"
    if not version:
        return [ok("sql", f"{listed}; not confined by the kernel, which offers no Landlock (Linux 5.13 or later)")]
    network = "files and connections" if version >= 4 else "files; connections need Linux 6.7"
    return [ok("sql", f"{listed}; confined by the kernel too (Landlock {version}: {network})")]


def alerts(settings: Settings) -> list[Finding]:
    """Where alerts go."""
    if settings.alert_url:
        return [ok("alerts", f"sent to RECSYS_DATA_ALERT_URL as {settings.alert_format}; try: recsys-data alerts test")]
    return [ok("alerts", "logged only; RECSYS_DATA_ALERT_URL names a webhook to send them to")]


def packages(settings: Settings) -> list[Finding]:
    """Whether what is installed is what this version was made for."""
    from packaging.requirements import Requirement

    wrong = []
    for text in importlib.metadata.requires("recsys-data") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version}, expected {wanted.specifier}")
    if wrong:
        return [problem("packages", "; ".join(wrong), "Install again: pip install --upgrade recsys-data.")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    own = importlib.metadata.version("recsys-data")
    return [ok("packages", f"recsys-data {own}, Python {platform.python_version()}, {versions}")]


def dagster_storage(settings: Settings) -> list[Finding]:
    """How large Dagster's own storage has become."""
    given = variable("DAGSTER_HOME")
    folder = Path(given) if given else settings.dagster_dir
    if not folder.is_dir():
        return [ok("Dagster storage", f"none in {folder}")]
    until = time.monotonic() + WALK_SECONDS
    size = files = 0
    whole = True
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(Path(parent) / name).st_size
            except FileNotFoundError:
                continue
            files += 1
        if time.monotonic() > until:
            whole = False
            break
    found = f"{'' if whole else 'more than '}{size / GIB:.2f} GiB in {files:,} files in {folder}"
    if size > LARGE_STORAGE or not whole:
        advice = "Delete old runs in the Dagster UI, or set shorter `retention` in dagster.yaml."
        return [warning("Dagster storage", found, advice)]
    return [ok("Dagster storage", found)]
