"""The processes of a soak: the ordinary `recsys-data up`, traffic, and what Dagster is asked to do meanwhile.

Memory is the resident set by role. A process that Dagster starts is known by its command line.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from recsys_data.ingestion.streaming.consumer_lease import lease_holder
from recsys_data.operations.ui.token import ui_token
from recsys_data.settings import Settings

ROLES = (
    ("recsys_data.cli up", "up"),
    ("recsys_data.cli collect", "collector"),
    ("recsys_data.cli serve", "serving"),
    ("recsys_data.cli simulate", "traffic"),
    ("recsys_data.operations.ui", "webserver"),
    ("dagster._daemon", "daemon"),
    ("code-server start", "code server's front"),
    ("api grpc", "code server"),
    ("spawn_main", "run"),
)
MB = 1e6
POLL_SECONDS = 0.5
RUNS = "{ runsOrError(limit: 500) { ... on Runs { results { jobName status startTime endTime } } } }"
EVENTS = """{ assetOrError(assetKey: {path: ["interactions"]}) { ... on Asset { assetMaterializations(limit: 2000)
    { timestamp metadataEntries { label ... on IntMetadataEntry { intValue }
    ... on FloatMetadataEntry { floatValue } } } } } }"""


class Platform:
    """`recsys-data up --no-demo` on a state folder of its own, and a client that simulates a shop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collector, self.ui, self.serving = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
        plain.pop("DAGSTER_HOME", None)
        self.environment = {**plain, "RECSYS_DATA_DIR": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[bytes]] = []
        self._consumers: set[int] = set()

    def command(self, *arguments: str, name: str, niceness: int = 0) -> "subprocess.Popen[bytes]":
        """Start `recsys-data ARGUMENTS`; what it prints goes to `<name>.log`."""
        with (self.folder / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "recsys_data.cli", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=(lambda: os.nice(niceness)) if niceness else None,
            )
        self._started.append(process)
        return process

    def start(self) -> "subprocess.Popen[bytes]":
        """Everything but the traffic; returns when collector and UI answer."""
        ports = [url.rpartition(":")[2] for url in (self.ui, self.collector, self.serving)]
        given = ("--port", ports[0], "--collector-port", ports[1], "--serving-port", ports[2])
        up = self.command("up", "--no-demo", *given, name="up")
        deadline = time.monotonic() + 120
        for url in (f"{self.collector}/health", f"{self.ui}/server_info"):
            while not answers(url, self.headers()):
                if up.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{url} does not answer: {(self.folder / 'up.log').read_text()[-3000:]}")
                time.sleep(POLL_SECONDS)
        return up

    def stop(self, process: "subprocess.Popen[bytes]", seconds: float = 90.0) -> int:
        """Ask a process that was started here to end; returns its exit code."""
        # Not SIGINT, which a shell lets its background jobs ignore, and they their children.
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop_all(self) -> None:
        for process in reversed(self._started):
            self.stop(process)

    def memory(self) -> list[tuple[str, int, float]]:
        """Role, process id and resident MB of everything that was started here and runs.

        Runs are forked by the code server and look alike: which consumes is known by the lock that they take in turn.
        """
        holder = lease_holder(Settings(dir=self.environment["RECSYS_DATA_DIR"]))
        if holder:
            self._consumers.add(holder.process)
        found = []
        for started in self._started:
            if started.poll() is not None:
                continue
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(started.pid)
                for process in (parent, *parent.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                        found.append((self._role(process), process.pid, round(process.memory_info().rss / MB, 1)))
        return found

    def _role(self, process: psutil.Process) -> str:
        line = " ".join(process.cmdline())
        role = next((role for part, role in ROLES if part in line), "other")
        if role == "run":
            return "consumer run" if process.pid in self._consumers else "other run"
        return role

    def headers(self) -> dict[str, str]:
        """What the UI asks of a program."""
        folder = Path(self.environment["RECSYS_DATA_DIR"])
        # `up` makes the folder, and in it the token.
        token = ui_token(Settings(dir=str(folder)).ui_token_file) if folder.is_dir() else ""
        return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def query(self, text: str, variables: Mapping[str, Any] | None = None) -> Any:
        """What the webserver's GraphQL answers.

        Raises:
            RuntimeError: it reported errors.
        """
        body = json.dumps({"query": text, "variables": variables or {}}).encode()
        request = urllib.request.Request(f"{self.ui}/graphql", body, self.headers())
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        if found.get("errors"):
            raise RuntimeError(f"GraphQL: {found['errors']}")
        return found["data"]

    def runs(self) -> list[dict[str, Any]]:
        return self.query(RUNS)["runsOrError"]["results"]

    def reported(self) -> list[tuple[float, float, float]]:
        """What consumers reported of `interactions`: time (seconds since 1970), commits, and their seconds in all."""
        found = []
        for event in self.query(EVENTS)["assetOrError"].get("assetMaterializations", ()):
            reported = {e["label"]: e.get("intValue", e.get("floatValue")) for e in event["metadataEntries"]}
            if reported.get("commits") and reported.get("commit seconds") is not None:
                found.append((float(event["timestamp"]) / 1000, reported["commits"], reported["commit seconds"]))
        return sorted(set(found))


def answers(url: str, headers: Mapping[str, str]) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def appended(collector: str) -> int:
    """Lines that a collector has acknowledged, by its metrics."""
    with urllib.request.urlopen(f"{collector}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("collector_events_appended_total "):
                return int(float(line.split()[1]))
    return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
