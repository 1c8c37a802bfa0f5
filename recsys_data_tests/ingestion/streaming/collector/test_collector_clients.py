"""Published client libraries, unmodified, against a collector that works, fails, stops or is killed.

The Node library is looked for in the folder that RECSYS_TEST_NODE_CLIENTS names (it holds `node_modules`).
Without a library its tests are skipped, but in CI they fail.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from recsys_data.contracts import load_contracts
from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.collector.server import bind
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.query import connect
from recsys_data.storage.tables import open_lake

pytestmark = pytest.mark.integration

KEY = "the-write-key"
CALLS = 1000
SECONDS = 120
CLIENTS = Path(__file__).parent / "clients"
COLLECTOR = """
import os, signal, sys
from pathlib import Path
from recsys_data.ingestion.streaming.collector.server import serve
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.settings import Settings

folder, key, port, appends = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

class DyingLog(EmbeddedLog):
    def append(self, lines):
        global appends
        super().append(lines)
        appends -= 1
        if appends == 0:
            os.kill(os.getpid(), signal.SIGKILL)

log = DyingLog(folder, partitions=1, segment_bytes=1 << 24)
serve(log, Settings(write_keys=key), port=port)
log.close()
print("stopped")
"""

StartClient = Callable[[str], subprocess.Popen[str]]


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, but CI must run every client.")
    pytest.skip(f"{what}.")


def python_client(module: str) -> Callable[[str], list[str]]:
    if not importlib.util.find_spec(module.partition(".")[0]):
        missing(f"The Python library {module} is not installed")
    return lambda host: [sys.executable, str(CLIENTS / "python_sdk.py"), module, host, KEY, str(CALLS)]


def node_client() -> Callable[[str], list[str]]:
    folder = Path(os.environ.get("RECSYS_TEST_NODE_CLIENTS", "")) / "node_modules"
    if not shutil.which("node") or not (folder / "@segment" / "analytics-node").is_dir():
        missing("node, or @segment/analytics-node below RECSYS_TEST_NODE_CLIENTS, is not there")
    return lambda host: ["node", str(CLIENTS / "node_sdk.js"), host, KEY, str(CALLS), "10"]


@pytest.fixture(params=["segment-python", "rudder-python", "segment-node"])
def start_client(request: pytest.FixtureRequest) -> Iterator[StartClient]:
    """Starts one client library that makes its calls to a host."""
    command = {
        "segment-python": lambda: python_client("segment.analytics.client"),
        "rudder-python": lambda: python_client("rudderstack.analytics.client"),
        "segment-node": node_client,
    }[request.param]()
    environment = os.environ | {"NODE_PATH": str(Path(os.environ.get("RECSYS_TEST_NODE_CLIENTS", "")) / "node_modules")}
    started: list[subprocess.Popen[str]] = []

    def start(host: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command(host), stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(client: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for the client; the ids of its messages and how many events each stands for."""
    printed, _ = client.communicate(timeout=SECONDS)
    assert client.returncode == 0
    return json.loads(printed)


def arrived(log) -> Counter[str]:
    """How often each event id stands in the log."""
    return Counter(event["event_id"] for event in log.events())


def per_message(event_ids: Counter[str]) -> Counter[str]:
    """How many different events each message became."""
    return Counter(event_id.partition(":")[0] for event_id in event_ids)


def test_every_call_arrives_exactly_once(run, log, start_client):
    expected = finish(start_client(run(write_keys=KEY).url))
    found = arrived(log)
    assert len(expected) == CALLS
    assert set(found.values()) == {1}
    assert per_message(found) == expected
    kinds = Counter(event["type"] for event in log.events())
    assert {"view", "purchase", "impression", "custom", "page_view", "identify", "alias", "group"} == set(kinds)
    assert all(event["event_ts"] <= event["received_at"] for event in log.events())


def test_nothing_is_lost_while_the_log_fails(run, log, start_client):
    log.failure = Transient("The disk is full.")
    collector = run(write_keys=KEY)
    client = start_client(collector.url)
    with httpx.Client(base_url=collector.url) as http:
        deadline = time.monotonic() + SECONDS
        while "collector_append_failures_total 0.0" in http.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        log.failure = None
    expected = finish(client)
    assert len(expected) == CALLS
    found = arrived(log)
    assert per_message(found) == expected
    assert set(found.values()) == {1}


def test_nothing_is_lost_when_the_collector_is_killed_and_started_again(log, start_client, tmp_path):
    with bind("127.0.0.1", 0, keyless=True) as free:
        port = free.getsockname()[1]
    collector = start_collector(tmp_path / "log", port, appends=3)
    client = start_client(f"http://127.0.0.1:{port}")
    collector.communicate(timeout=SECONDS)
    assert collector.returncode == -signal.SIGKILL
    collector = start_collector(tmp_path / "log", port)
    expected = finish(client)
    collector.send_signal(signal.SIGTERM)
    printed, _ = collector.communicate(timeout=30)
    assert (collector.returncode, printed) == (0, "stopped\n")
    found = arrived(log)
    assert per_message(found) == expected
    # What was durable but not answered was sent again, under the same ids, by which ingestion drops it.
    assert set(found.values()) == {1, 2}
    stored, ledger = in_the_lake(tmp_path)
    assert per_message(stored) == expected
    assert set(stored.values()) == {1}
    assert (ledger.read, ledger.duplicates) == (found.total(), found.total() - len(found))
    assert (ledger.accepted, ledger.dead_letters) == (len(found), 0)


def in_the_lake(folder: Path) -> tuple[Counter[str], Ledger]:
    """Ingest the log of a state folder: how often each event id is stored, and the ledger."""
    settings = Settings(dir=str(folder))
    lake = open_lake(settings, load_contracts())
    log = open_log(settings)
    list(consume(log, lake, settings, Until()))
    log.close()
    with connect(lake, ["interactions", "identities"]) as connection:
        rows = connection.execute(
            "SELECT event_id FROM interactions UNION ALL SELECT event_id FROM identities"
        ).fetchall()
    return Counter(event_id for (event_id,) in rows), read_ledger(lake.table("interactions"))


def start_collector(folder: Path, port: int, appends: int = 0) -> subprocess.Popen[str]:
    """Start a collector as a process that answers, and that dies right after its n-th append."""
    arguments = [sys.executable, "-c", COLLECTOR, str(folder), KEY, str(port), str(appends)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        wait_for(lambda: answers(http))
    return process


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
