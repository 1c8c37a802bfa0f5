"""Serving killed under load: what was shown is in the log once, and the online store comes back equal to the lake."""

import http.client
import json
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.faults.cases.collector import free_port
from benchmarks.faults.harness.processes import Child
from benchmarks.faults.harness.result import PATIENCE_SECONDS, Harness, Result, explained
from benchmarks.faults.harness.state import State
from benchmarks.faults.harness.steps import PLACES, Fault, Steps

CLIENTS, ANSWERS_A_ROUND, SHOWN = 4, 300, 6
GIVE_UP_SECONDS = 90.0
# An answer that was given so long before its server was killed is in the log: the log is written every 50 ms, and an
# append takes a moment.
SETTLED_SECONDS = 1.0
EVENTS, ITEMS = 60, 60
UPDATE, REBUILD = ("online", "update"), ("online", "rebuild")
ROUNDS = 4
AT_ANY_MOMENT, REBUILDS, TWO = 0.25, 0.2, 0.2


def kill_server(harness: Harness, injections: int) -> Result:
    """Kill the server at a step of the log or at any moment, while clients ask with ids of their own, and ask again."""
    result = Result("server killed under load, clients ask again")
    last_moments = lost = 0
    while result.injections < injections and not result.problems:
        state = harness.state(SEGMENT_BYTES="100000")
        happen(state, 3 * EVENTS)
        for command in (("ingest", "--until-empty"), ("train", "popular")):
            child = state.command(*command)
            result.require(child.wait() == 0, f"{' '.join(command)}: {child.text()[-3000:]}")
        port, answered = free_port(), state.folder / "answered"
        names = [f"r-{number}" for number in range(ANSWERS_A_ROUND)]
        clients = state.child(lambda p=port, a=answered, n=names: ask_all(p, n, a))
        ends: list[float] = []
        server = _serve(state, port, None, result)
        while clients.poll() is None and not result.problems:
            time.sleep(harness.rng.uniform(0.5, 4.0))
            server.kill()
            server.wait()
            ends.append(time.time())
            result.injections += server.killed
            explained(server, result, "kills of the server")
            fault = None
            if harness.rng.random() < 0.5:
                fault = Fault(harness.rng.choice(PLACES["log"]), harness.rng.randint(1, 8))
            server = _serve(state, port, fault, result)
        result.require(clients.wait() == 0, f"clients were not served in the end: {clients.text()[-2000:]}")
        # The last server may have died of its fault; one that is asked to stop loses nothing.
        if server.poll() is not None:
            ends.append(time.time())
            server = _serve(state, port, None, result)
        server.signal(signal.SIGTERM)
        server.wait()
        explained(server, result, "a stop of the server")
        last = _note_answers(state, names, answered, ends)
        found = _check_lists(state, answered, result)
        last_moments, lost = last_moments + len(last), lost + len(last - found)
        harness.close(state, result)
    result.fault += f"; of {last_moments} answers in the last second before a kill {lost} are not in the log"
    return result


def _serve(state: State, port: int, fault: Fault | None, result: Result) -> Child:
    """A server that answers, or that has died of its fault."""
    begun = time.monotonic()
    child = state.command("serve", "--port", str(port), prepare=lambda: Steps("log", fault))
    while child.poll() is None and time.monotonic() - begun < PATIENCE_SECONDS:
        if ask(port, "/health", None) is not None:
            result.recoveries.append(time.monotonic() - begun)
            return child
        time.sleep(0.02)
    result.require(child.killed, f"the server did not start: {child.text()[-2000:]}")
    return child


def ask_all(port: int, names: list[str], answered: Path) -> None:
    """Ask from several threads, again and again until there is an answer; which items each had goes to a file."""
    left = list(names)
    taking = threading.Lock()
    with answered.open("a", buffering=1) as file:

        def client() -> None:
            rng = random.Random()
            while True:
                with taking:
                    if not left:
                        return
                    name = left.pop()
                deadline = time.monotonic() + GIVE_UP_SECONDS
                request = {"user_id": f"u{rng.randrange(40)}", "n": SHOWN, "recommendation_id": name}
                while (answer := ask(port, "/v1/recommend", request)) is None:
                    if time.monotonic() > deadline:
                        raise SystemExit("given up")
                    time.sleep(rng.uniform(0.005, 0.05))
                items = [one["item_id"] for one in answer["items"]]
                with taking:
                    file.write(json.dumps({"name": name, "items": items, "at": time.time()}) + "\n")
                time.sleep(rng.uniform(0.05, 0.4))

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if len(_answers(answered)) < len(names):
        raise SystemExit("not every request was answered")


def ask(port: int, path: str, body: dict | None) -> dict | None:
    """The answer, or None if the server was not there, or died."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}: {content!r}")
    return json.loads(content)


def _answers(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _note_answers(state: State, names: list[str], answered: Path, ends: list[float]) -> set[str]:
    """Note which impressions may be in the lake, and which must be; the answers that were given at the last moment."""
    for name in names:
        state.sent |= {f"{name}-{position}": b"" for position in range(1, SHOWN + 1)}
    last: set[str] = set()
    for one in _answers(answered):
        if any(one["at"] <= end < one["at"] + SETTLED_SECONDS for end in ends):
            last.add(one["name"])
        else:
            state.acknowledged |= {f"{one['name']}-{position}" for position in range(1, len(one["items"]) + 1)}
    return last


def _check_lists(state: State, answered: Path, result: Result) -> set[str]:
    """Of each answer the first items are in the lake, up to where a kill tore the append; the names of those there."""
    child = state.ingest()
    result.require(child.wait(PATIENCE_SECONDS) == 0, f"impressions were not consumed: {child.text()[-3000:]}")
    found = state.query(
        """SELECT recommendation_id AS name, count(*) AS lines, max(position) AS last, list(item_id ORDER BY position)
        AS items FROM interactions WHERE source = 'serving' GROUP BY ALL"""
    )
    result.require(found, "no impression is in the lake")
    given = {one["name"]: one["items"] for one in _answers(answered)}
    for one in found:
        result.require(one["lines"] == one["last"], f"a part of the list {one['name']} is missing: {one}")
        items = given.get(one["name"])
        # An answer that was given again may have other items than the first, which is in the lake.
        result.require(items is None or len(set(one["items"])) == one["lines"], f"an item is shown twice: {one}")
    return {one["name"] for one in found}


def kill_updater(harness: Harness, injections: int) -> Result:
    """Kill updates and rebuilds of the online store while events arrive; the next update makes it equal to the lake."""
    result = Result("online store, its updater killed at a step or at any moment")
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = harness.state()
        happen(state, EVENTS)
        state.ingest().wait()
        for _ in range(ROUNDS):
            happen(state, EVENTS)
            arriving = state.ingest()
            for _ in range(2):
                places = places or harness.rng.sample(PLACES["online"], len(PLACES["online"]))
                beside = state.command(*UPDATE) if state.rng.random() < TWO else None
                child, fault = _killed(state, places)
                result.injections += child.killed
                explained(child, result, fault)
                moved = "another process" in child.text() or "another one began" in child.text()
                result.require(child.killed or not child.code or moved, f"{fault}: {child.text()[-3000:]}")
                if beside:
                    beside.wait(PATIENCE_SECONDS)
                    explained(beside, result, f"beside {fault}")
            result.require(arriving.wait() == 0, f"events were not consumed: {arriving.text()[-3000:]}")
            _compare(state, result)
            if result.problems or result.injections >= injections:
                break
        harness.close(state, result)
    return result


def happen(state: State, count: int) -> None:
    """Append events of the last days: views, clicks and purchases of some users."""
    now, names = datetime.now(UTC), []
    for _ in range(count):
        name = f"o-{len(state.sent)}-{state.rng.getrandbits(32):08x}"
        at = now - timedelta(seconds=state.rng.uniform(0, 5 * 24 * 3600))
        event = {
            "event_id": name,
            "type": state.rng.choice(("view", "click", "purchase", "add_to_cart")),
            "user_id": f"u{state.rng.randrange(40)}",
            "item_id": f"i{state.rng.randrange(ITEMS)}",
            "event_ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "received_at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if event["type"] == "purchase":
            event |= {"price": 5.0, "quantity": 1, "currency": "EUR", "order_id": name}
        state.sent[name] = json.dumps(event, separators=(",", ":")).encode()
        names.append(name)
    state.waiting.append(names)
    state.send(0)


def _killed(state: State, places: list[str]) -> tuple[Child, str]:
    """Run an update or a rebuild, and kill it; returns how."""
    command = REBUILD if state.rng.random() < REBUILDS else UPDATE
    if state.rng.random() < AT_ANY_MOMENT:
        child = state.command(*command)
        time.sleep(state.rng.uniform(0.1, 2.0))
        child.kill()
        child.wait()
        return child, f"{' '.join(command)}, killed at any moment"
    place = places.pop()
    # Keys are packed one by one, in the middle of a transaction.
    fault = Fault(place, state.rng.randint(1, 60 if "packed" in place else 3))
    child = state.command(*command, prepare=lambda: Steps("online", fault))
    child.wait()
    return child, f"{' '.join(command)}, {fault}"


def _compare(state: State, result: Result) -> None:
    """After an ordinary update every key is what a rebuild would write."""
    for command in (UPDATE, ("online", "verify")):
        child = state.command(*command)
        child.wait(PATIENCE_SECONDS)
        if command == UPDATE:
            result.recoveries.append(child.seconds)
        result.require(child.code == 0, f"{' '.join(command)}: {child.text()[-3000:]}")
