"""What the kernel was asked to do, and when: nothing is acknowledged or committed before it is on the disk."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys_data_tests.support.traces import CALLS, Trace

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.faults
Traced = Callable[..., "subprocess.Popen[bytes]"]
COMMAND = "from recsys_data.cli import main; main()"
SABOTAGED = f"from benchmarks.faults.harness.steps import sabotage; sabotage('fsync'); {COMMAND}"


@pytest.fixture(scope="session", autouse=True)
def allowed() -> None:
    """Skips where tracing is refused, and only there."""
    try:
        probe = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.fail("strace is not installed: apt-get install strace")
    if probe.returncode:
        pytest.skip(f"SYSTEM CALLS ARE NOT WATCHED, for tracing is refused here: {probe.stderr.strip()}")


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """Starts a traced command; the process is the command itself."""

    def start(*arguments: str, code: str = COMMAND) -> "subprocess.Popen[bytes]":
        # -D: strace is not in between, so that a signal reaches the command.
        strace = ["strace", "-D", "-f", "-y", "-qq", "-s", "64", "-e", "signal=none", "-e", f"trace={CALLS}"]
        command = [*strace, "-o", str(tmp_path / "trace"), sys.executable, "-c", code, *arguments]
        environment = os.environ | {"RECSYS_DATA_DIR": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return start


def finished(process: "subprocess.Popen[bytes]", folder: Path) -> Trace:
    """The trace of a command that ended well."""
    # Its last words come when strace, which holds the pipe too, has written everything.
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    with (folder / "trace").open(errors="replace") as lines:
        return Trace(folder / "state").read(lines)


def event(number: int) -> bytes:
    day = f"2026-01-{1 + number % 3:02d}T12:00:00Z"
    one = {"event_id": f"e-{number}", "type": "view", "user_id": "u1", "item_id": "i1", "event_ts": day}
    return json.dumps(one).encode()


def send(port: int, count: int) -> None:
    """One request after the other, so that no other append is under way when one is answered."""
    for number in range(count):
        url = f"http://127.0.0.1:{port}/v1/events"
        with urllib.request.urlopen(url, event(number), timeout=60) as answer:
            assert answer.status == 200


def test_events_are_synced_before_they_are_acknowledged_and_tables_before_they_are_committed(
    traced: Traced, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    collector = traced("collect", "--port", str(port))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and collector.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    send(port, 20)
    collector.send_signal(signal.SIGTERM)
    trace = finished(collector, tmp_path)
    assert (trace.acknowledged, trace.unsafe) == (20, [])

    trace = finished(traced("ingest", "--until-empty"), tmp_path)
    assert trace.commits > 4
    assert trace.unsafe == []
    assert sum(path.endswith(".parquet") for path in trace.written) >= 3


def test_snapshots_and_histories_are_synced_before_they_are_committed(traced: Traced, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "landing" / "item_catalog" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text('{"item_id": "i1", "title": "T", "price": 1, "currency": "EUR"}\n')
    trace = finished(traced("snapshot", "take", "item_catalog"), tmp_path)
    assert trace.commits > 4
    assert trace.unsafe == []
    assert sum(path.endswith(".parquet") for path in trace.written) >= 2


def test_a_sync_that_is_left_out_is_missed(traced: Traced, tmp_path: Path) -> None:
    log = tmp_path / "state" / "log" / "0"
    log.mkdir(parents=True)
    (log / f"{0:020d}.ndjson").write_bytes(event(1) + b"\n")
    trace = finished(traced("ingest", "--until-empty", code=SABOTAGED), tmp_path)
    assert any("commit before a sync of" in one for one in trace.unsafe)


LINES = """\
7 openat(AT_FDCWD</>, "/s/log/0/1.ndjson", O_RDWR|O_CREAT, 0644) = 5</s/log/0/1.ndjson>
7 fsync(6</s/log/0>) = 0
7 pwrite64(5</s/log/0/1.ndjson>, "{}", 2, 0) = 2
7 fdatasync(5</s/log/0/1.ndjson> <unfinished ...>
8 write(9<socket:[4]>, "HTTP/1.1 200 OK"..., 90) = 90
7 <... fdatasync resumed>) = 0
8 write(9<socket:[4]>, "HTTP/1.1 200 OK"..., 90) = 90
"""


def test_a_sync_counts_when_it_has_ended_and_for_what_was_written_before_it() -> None:
    trace = Trace(Path("/s")).read(LINES.splitlines())
    assert (trace.acknowledged, trace.unsafe) == (2, ["acknowledgement before a sync of /s/log/0/1.ndjson"])
    unnamed = [line for line in LINES.splitlines() if "fsync(6" not in line]
    assert any("names 1.ndjson" in one for one in Trace(Path("/s")).read(unnamed).unsafe)
