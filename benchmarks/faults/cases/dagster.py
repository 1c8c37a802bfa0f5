"""Cases of Dagster as a whole: its daemon, code server and runs are killed at once, or are away for long.

The daemon has the configuration that `recsys-data up` gives it, and a code server of its own; there is no UI, which
nothing needs.
Nobody looks after it: what it left behind in its own storage, such as runs that seem to go on, stays there.
"""

import os
import sys
import time
from pathlib import Path

from benchmarks.faults.cases.collector import free_port, send_all, start
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import Harness, Result, recover, verify
from benchmarks.faults.harness.state import State
from recsys_data.ingestion.streaming.consumer_lease import lease_holder
from recsys_data.settings import Settings

ROOT = Path(__file__).parents[3]
LONGEST_SECONDS = 180.0
SETTINGS = {"DRAIN_SECONDS": "20", "IDLE_SECONDS": "5", "SEGMENT_BYTES": "1000000", "LOG_RETENTION_HOURS": "1"}
# For each of four clients, which send ten events at a time: about a hundred events a second.
PAUSE = (0.3, 0.5)
EVENTS_A_ROUND = 2_000
AWAY_SECONDS = 20.0


def kill_dagster(harness: Harness, injections: int) -> Result:
    """Kill the process group of the daemon, with its code server and its run, in mid-commit; start it again."""
    result = Result("Dagster killed as a whole in mid-commit")
    platform = Platform(harness.state(**SETTINGS))
    try:
        while result.injections < injections and not result.problems:
            clients = platform.traffic(EVENTS_A_ROUND)
            result.require(platform.wait_for_consumer(), f"no consumer began: {platform.daemon.text()[-3000:]}")
            time.sleep(harness.rng.uniform(0, 4))
            result.injections += platform.consuming
            platform.kill()
            time.sleep(harness.rng.uniform(0, 2))
            _restart(platform, clients, result)
    finally:
        platform.end()
    _conclude(harness, platform.state, result)
    return result


def daemon_away(harness: Harness, injections: int) -> Result:
    """The daemon is away while events keep coming, in one go for as many times 20 s as there are injections."""
    result = Result(f"daemon away for {AWAY_SECONDS * injections:.0f} s")
    platform = Platform(harness.state(**SETTINGS))
    try:
        result.require(platform.wait_for_consumer(platform.traffic(100)), "no consumer began")
        platform.kill()
        clients = platform.traffic(EVENTS_A_ROUND * injections)
        time.sleep(AWAY_SECONDS * injections)
        result.injections += 1
        # Their pauses alone take as long as the daemon is away.
        _restart(platform, clients, result, LONGEST_SECONDS + AWAY_SECONDS * injections / 4)
    finally:
        platform.end()
    _conclude(harness, platform.state, result)
    return result


def _restart(platform: "Platform", clients: Child, result: Result, clients_seconds: float = LONGEST_SECONDS) -> None:
    """Start the daemon; what was in the log must be stored, without a human, while more comes."""
    platform.start_daemon()
    caught_up = platform.state.child(wait_until_caught_up)
    caught_up.wait(LONGEST_SECONDS + 30)
    result.recoveries.append(caught_up.seconds)
    result.require(caught_up.code == 0, f"{caught_up.text()[-1000:]}\n{platform.daemon.text()[-3000:]}")
    result.require(clients.wait(clients_seconds) == 0, f"clients were not served: {clients.text()[-2000:]}")
    platform.acknowledge()


def _conclude(harness: Harness, state: State, result: Result) -> None:
    if not result.problems:
        # How long it takes without Dagster is not what this is about.
        last = Result("")
        recover(state, last, "Dagster")
        result.problems += last.problems
        verify(state, result, "Dagster")
        harness.close(state, Result(""))
    result.sent += len(state.sent)


class Platform:
    """A collector, a daemon, and clients that send."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings = Settings(dir=str(state.dir))
        self.port = free_port()
        self.acks = state.folder / "acknowledged"
        state.tight = False
        self.collector = start(state, self.port, None, Result(""), lambda: None)
        self.start_daemon()

    def start_daemon(self) -> None:
        self.daemon = self.state.child(run_daemon)

    def traffic(self, count: int) -> Child:
        """Clients that send new events for a while."""
        names = self.state.make(count)
        return self.state.child(lambda: send_all(self.state, self.port, names, self.acks, PAUSE))

    def acknowledge(self) -> None:
        self.state.acknowledged.update(self.acks.read_text().split())

    @property
    def consuming(self) -> bool:
        return lease_holder(self.settings) is not None

    def wait_for_consumer(self, clients: Child | None = None) -> bool:
        """Wait until a run consumes, and the clients are done."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while not self.consuming and time.monotonic() < deadline:
            time.sleep(0.1)
        if clients:
            clients.wait()
        return time.monotonic() < deadline

    def kill(self) -> None:
        self.daemon.kill_group()
        # It may not have made its group yet.
        self.daemon.kill()
        self.daemon.wait()

    def end(self) -> None:
        self.kill()
        self.collector.kill()
        self.collector.wait()


def run_daemon() -> None:
    """Become the daemon, in the environment that `recsys-data up` gives it."""
    from recsys_data.cli.up import environment_of

    environment = environment_of(Settings.from_env())
    os.chdir(ROOT)
    os.setsid()
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "recsys_data.definitions"]
    os.execve(command[0], command, environment)


def wait_until_caught_up() -> None:
    """Wait until what the log holds now is stored."""
    from recsys_data.contracts import load_contracts
    from recsys_data.ingestion.streaming.consumer import wait_until_stored
    from recsys_data.ingestion.streaming.log.open import open_log
    from recsys_data.storage.tables import open_lake

    settings = Settings.from_env()
    wait_until_stored(open_lake(settings, load_contracts()), open_log(settings).end_offsets(), LONGEST_SECONDS)
