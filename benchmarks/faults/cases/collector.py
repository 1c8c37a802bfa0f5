"""The collector killed under load: clients with plain HTTP send known events until each is acknowledged."""

import http.client
import logging
import random
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.harness.processes import Child, limit_file_size
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

CLIENTS = 4
BATCH = 10
EVENTS_A_ROUND = 2400
GIVE_UP_SECONDS = 90.0
FULL = 4_000


def kill_collector(harness: Harness, injections: int) -> Result:
    """Kill the collector at a step or at any moment, start it again on its port, now and then on a full disk."""
    result = Result("collector killed under load, clients retry")
    while result.injections < injections and not result.problems:
        state = harness.state(SEGMENT_BYTES="100000")
        state.tight = False
        names = state.make(EVENTS_A_ROUND)
        port, acks = free_port(), state.folder / "acknowledged"
        clients = state.child(lambda s=state, p=port, a=acks, n=names: send_all(s, p, n, a))
        collector = start(state, port, None, result)
        while clients.poll() is None and not result.problems:
            _disturb(harness, state, collector)
            collector.kill()
            collector.wait()
            result.injections += collector.killed
            explained(collector, result, "kills of the collector")
            fault = None
            if harness.rng.random() < 0.5:
                fault = Fault(harness.rng.choice(PLACES["log"]), harness.rng.randint(1, 3))
            collector = start(state, port, fault, result)
        clients.wait()
        collector.kill()
        collector.wait()
        result.require(clients.code == 0, f"clients were not served in the end: {clients.text()[-2000:]}")
        state.acknowledged.update(acks.read_text().split() if acks.exists() else ())
        harness.close(state, result)
    return result


def _disturb(harness: Harness, state: State, collector: Child) -> None:
    """Let the collector serve for a moment; at times a disk that is full for a part of it, and a consumer beside it."""
    if harness.rng.random() < 0.3 and collector.poll() is None:
        limit_file_size(collector.pid, FULL)
        time.sleep(0.1)
        if collector.poll() is None:
            limit_file_size(collector.pid, resource.RLIM_INFINITY)
    consumer = state.ingest() if harness.rng.random() < 0.3 else None
    time.sleep(harness.rng.uniform(0.05, 0.5))
    if consumer:
        consumer.wait()


def start(
    state: State, port: int, fault: Fault | None, result: Result, prepare: Callable[[], object] | None = None
) -> Child:
    """A collector that takes requests, or that has died of its fault."""
    begun = time.monotonic()
    child = state.command("collect", "--port", str(port), prepare=prepare or (lambda: _arm(fault)))
    while child.poll() is None and time.monotonic() - begun < PATIENCE_SECONDS:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            result.recoveries.append(time.monotonic() - begun)
            return child
    result.require(child.killed, f"the collector did not start: {child.text()[-2000:]}")
    return child


def _arm(fault: Fault | None) -> None:
    # On the disk that is full for it lies what it prints too; that some of that is missing then is no defect.
    logging.raiseExceptions = False
    Steps("log", fault)


def send_all(state: State, port: int, names: list[str], acks: Path, pause: tuple[float, float] = (0.02, 0.15)) -> None:
    """Send events from several threads; the ids that were acknowledged are written to a file as they are."""
    batches = [names[at : at + BATCH] for at in range(0, len(names), BATCH)]
    taking = threading.Lock()
    left = list(range(len(batches)))
    with acks.open("a", buffering=1) as file:

        def client() -> None:
            rng = random.Random()
            while True:
                with taking:
                    if not left:
                        return
                    batch = batches[left.pop()]
                deadline = time.monotonic() + GIVE_UP_SECONDS
                body = b"\n".join(state.sent[name] for name in batch)
                while not post(port, body):
                    if time.monotonic() > deadline:
                        raise SystemExit("given up")
                    time.sleep(rng.uniform(0.005, 0.05))
                with taking:
                    file.write("\n".join(batch) + "\n")
                time.sleep(rng.uniform(*pause))

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if left or len(acks.read_text().split()) < len(names):
        raise SystemExit("not everything was acknowledged")


def post(port: int, body: bytes) -> bool:
    """Whether the collector acknowledged the events; a refusal that clients do not retry is an error."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/v1/events", body)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if answer.status not in (200, 429, 503):
        raise RuntimeError(f"the collector answered {answer.status}")
    return answer.status == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
