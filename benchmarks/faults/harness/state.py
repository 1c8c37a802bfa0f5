"""A platform that is treated badly: what was sent to it, what it acknowledged, and what it holds in the end.

Data flow: `State.send` -> event log -> `State.ingest` -> lake -> `State.verdict`. Every command is the ordinary
`recsys-data` in a process of its own. A line that was not acknowledged is sent again, as a client does.
"""

import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

from benchmarks.faults.harness.clock import set_clock
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.steps import Fault, Steps, sabotage, tighten
from recsys_data.cli import main
from recsys_data.errors import RecsysDataError
from recsys_data.settings import Settings

PRIMARIES = ("interactions", "identities")
# Files of the landing folder are written before the process that takes them starts.
SETTINGS = {"LOG_PARTITIONS": "2", "SEGMENT_BYTES": "12000", "LOG_RETENTION_HOURS": "0", "LANDING_REST_SECONDS": "0"}
Prepare = Callable[[], object]


@dataclass
class Verdict:
    """What is wrong: acknowledged events that are nowhere, events and lines that are there twice, anything else."""

    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)


class State:
    """One state folder, and the truth about what was sent to it."""

    def __init__(self, folder: Path, rng: random.Random, protection_off: str | None = None, **settings: str) -> None:
        self.folder = folder
        self.rng = rng
        self.protection_off = protection_off
        self.dir = folder / "state"
        self.dir.mkdir(parents=True)
        self.settings = {**SETTINGS, **settings, "DIR": str(self.dir)}
        self.sent: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.waiting: list[list[str]] = []
        self.with_context: set[str] = set()
        self.tight = True
        # Seconds that the clocks of its processes are ahead; behind if negative.
        self.ahead = 0.0
        self._outputs = 0

    def child(self, work: Prepare, prepare: Prepare | None = None) -> Child:
        """Do `work` in a process with this folder's settings, after `prepare`."""
        self._outputs += 1

        def run() -> None:
            for name in [name for name in os.environ if name.startswith("RECSYS_DATA_")]:
                del os.environ[name]
            os.environ.update({f"RECSYS_DATA_{name}": value for name, value in self.settings.items()})
            random.seed()
            if self.tight:
                tighten()
            sabotage(self.protection_off)
            if self.ahead:
                set_clock(self.ahead)
            if prepare:
                prepare()
            work()

        return Child(run, self.folder / f"{self._outputs}.txt")

    def command(self, *arguments: str, prepare: Prepare | None = None) -> Child:
        """Run `recsys-data ARGUMENTS`."""

        def work() -> None:
            sys.argv = ["recsys-data", *arguments]
            main()

        return self.child(work, prepare)

    def ingest(self, fault: Fault | None = None, prepare: Prepare | None = None) -> Child:
        """Consume what waits, with a fault."""
        return self.command("ingest", "--until-empty", prepare=prepare or (lambda: Steps("consumer", fault)))

    def make(self, count: int) -> list[str]:
        """The ids of new events: most good, some with context, some statements, some that break the contract."""
        made = []
        for _ in range(count):
            name = f"e-{len(self.sent)}-{self.rng.getrandbits(32):08x}"
            self.sent[name] = event_line(name, self.rng)
            if b'"context"' in self.sent[name]:
                self.with_context.add(name)
            made.append(name)
        return made

    def send(self, count: int, again: int = 0, fault: Fault | None = None, prepare: Prepare | None = None) -> Child:
        """Append new events, those that were not acknowledged, and some that were delivered `again`; wait for it."""
        names = self.make(count) + [name for group in self.waiting for name in group]
        if self.acknowledged and again:
            names += self.rng.choices(sorted(self.acknowledged), k=again)
        self.rng.shuffle(names)
        groups = [names[at : at + 10] for at in range(0, len(names), 10)]
        acks = self.folder / "acks"
        acks.unlink(missing_ok=True)

        def work() -> None:
            append_groups([[self.sent[name] for name in group] for group in groups], acks)

        child = self.child(work, prepare or (lambda: Steps("log", fault)))
        child.wait()
        done = len(acks.read_bytes()) if acks.exists() else 0
        self.acknowledged.update(name for group in groups[:done] for name in group)
        self.waiting = groups[done:]
        return child

    def verdict(self) -> Verdict:
        """Compare what is stored with what was acknowledged; the log must be empty."""
        report = self.folder / "found.json"
        child = self.child(lambda: report.write_text(json.dumps(found_in_lake())))
        if child.wait():
            return Verdict(problems=[f"status or tables cannot be read:\n{child.text()}"])
        found = json.loads(report.read_text())
        verdict = Verdict()
        status = found["status"]
        if not status["ledger"]["balanced"]:
            verdict.problems.append(f"the ledger is not balanced: {status['ledger']}")
        verdict.problems += [f"verify: {fault}" for fault in found["faults"]]
        if status["log"]["lag_events"]:
            verdict.problems.append(f"{status['log']['lag_events']} events still wait")
        # A damaged line may show no id any more.
        events, dead = Counter(found["events"]), set(found["dead"]) - {""}
        verdict.lost = len(self.acknowledged - events.keys() - dead)
        verdict.lost += len((self.with_context & events.keys()) - set(found["contexts"]))
        verdict.doubled = sum(count - 1 for count in events.values()) + len(events.keys() & dead) + found["repeated"]
        verdict.doubled += len(found["contexts"]) - len(set(found["contexts"]))
        foreign = (events.keys() | dead) - self.sent.keys()
        if foreign:
            verdict.problems.append(f"{len(foreign)} events that nobody sent, such as {min(foreign)}")
        return verdict

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query by `recsys-data sql`."""
        child = self.command("sql", sql, "--format", "json")
        if child.wait():
            raise RuntimeError(f"{sql}: {child.text()[-2000:]}")
        return json.loads(child.text())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def event_line(name: str, rng: random.Random) -> bytes:
    """An event of this id as a client sends it."""
    kind = rng.random()
    event: dict[str, Any] = {"event_id": name, "type": "view", "user_id": "u1", "item_id": f"i{rng.randrange(50)}"}
    event |= {"event_ts": f"2026-01-{rng.randrange(1, 4):02d}T12:00:00Z", "received_at": "2026-01-31T00:00:00Z"}
    if kind < 0.05:
        del event["item_id"]
    elif kind < 0.1:
        event |= {"type": "identify", "anonymous_id": "a1", "item_id": None}
    elif kind < 0.4:
        event["context"] = {"page": "p"}
    return json.dumps(event, separators=(",", ":")).encode()


def append_groups(groups: Sequence[Sequence[bytes]], acks: Path) -> None:
    """Append group by group; each that the log took is a byte in the file `acks`, for another process to see."""
    from recsys_data.ingestion.streaming.log.open import open_log

    log = open_log(Settings.from_env())
    with acks.open("ab", buffering=0) as file:
        for group in groups:
            try:
                log.append(group)
            except RecsysDataError as error:
                raise SystemExit(f"{type(error).__name__}: {error}") from None
            file.write(b".")
    log.close()


def found_in_lake() -> dict[str, Any]:
    """What `recsys-data status --json` says, and which events are where."""
    from recsys_data.contracts import load_contracts
    from recsys_data.ingestion.streaming.log.open import open_log
    from recsys_data.monitoring.verification import verify
    from recsys_data.storage.query import connect
    from recsys_data.storage.tables import open_lake

    text = TextIOWrapper(BytesIO())
    sys.argv = ["recsys-data", "status", "--json"]
    with redirect_stdout(text), suppress(SystemExit):
        main()
    text.seek(0)
    settings = Settings.from_env()
    lake = open_lake(settings, load_contracts())
    log = open_log(settings)
    faults = [f"{one.check}: {one.found}" for one in verify(lake, log, settings) if one.state != "ok"]
    log.close()
    names = [*PRIMARIES, "contexts", "dead_letters"]
    with connect(lake, names) as lines:

        def ids(sql: str) -> list:
            return [row[0] for row in lines.execute(sql).fetchall()]

        places = "SELECT count(*) - count(DISTINCT (log_partition, log_offset)) AS more FROM "
        repeated = sum(ids(" UNION ALL ".join(places + name for name in names)))
        return {
            "status": json.loads(text.read()),
            "faults": faults,
            "events": ids(" UNION ALL ".join(f"SELECT event_id FROM {name}" for name in PRIMARIES)),
            "contexts": ids("SELECT event_id FROM contexts"),
            # DuckDB writes quotes of a BLOB as \x22, and what a disk zeroed as \x00: an id with a hole is none.
            "dead": ids(r"""SELECT coalesce(event_id, regexp_extract(replace(raw::VARCHAR, '\x22', '"'),
                '"event_id":"([-0-9a-z]+)"', 1)) FROM dead_letters"""),
            "repeated": repeated,
        }
