"""Snapshots and their history, killed at each step: in the end they are what landed, day by day."""

import json
from collections import Counter

from benchmarks.faults_result import PATIENCE_SECONDS, Harness, Result
from benchmarks.faults_state import State
from benchmarks.faults_steps import PLACES, Fault, Steps

NAME = "item_catalog"
DAYS, ITEMS = 6, 12
BAD = 2


def kill_snapshot(harness: Harness, injections: int) -> Result:
    """Land day after day, kill each `snapshot take` at a step, take again, and compare in the end."""
    result = Result("snapshot and history killed at a step")
    places: list[str] = []
    while result.injections < injections and not result.problems:
        state = harness.state()
        prices: dict[int, list[int]] = {}
        for day in harness.rng.sample(range(1, DAYS + 1), DAYS):
            prices[day] = land(state, day, harness)
            for _ in range(3):
                places = places or harness.rng.sample(PLACES["snapshot"], len(PLACES["snapshot"]))
                fault = Fault(places.pop(), harness.rng.randint(1, 2))
                child = state.command("snapshot", "take", NAME, prepare=lambda fault=fault: Steps("snapshot", fault))
                child.wait()
                result.injections += child.killed
                result.require(child.killed or not child.code, f"{fault}: {child.text()[-3000:]}")
        again = state.command("snapshot", "take", NAME)
        again.wait(PATIENCE_SECONDS)
        result.recoveries.append(again.seconds)
        result.require(again.code == 0, f"no recovery: {again.text()[-3000:]}")
        compare(state, prices, result)
        result.sent += DAYS * (ITEMS + BAD)
        if not result.failed:
            state.remove()
    return result


def land(state: State, day: int, harness: Harness) -> list[int]:
    """Write a day's catalogue: some prices change, and some rows break the contract (no item)."""
    prices = [harness.rng.randint(1, 2) if n < 4 else 1 for n in range(ITEMS)]
    rows = [{"item_id": f"i{n}", "title": "T", "price": price, "currency": "EUR"} for n, price in enumerate(prices)]
    rows += [{"item_id": f"i{n}", "title": "twice"} for n in range(BAD)]
    folder = state.dir / "landing" / NAME / f"2026-01-{day:02d}"
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prices


def expected_history(prices: dict[int, list[int]]) -> list[tuple[str, int, int]]:
    """Item, price and the day before whose end it became known, for each time that a price begins to hold.

    >>> expected_history({1: [5], 2: [5], 3: [6]})
    [('i0', 5, 1), ('i0', 6, 3)]
    """
    begun = []
    before: list[int] = []
    for day, today in sorted(prices.items()):
        begun += [(f"i{n}", price, day) for n, price in enumerate(today) if not before or before[n] != price]
        before = today
    return sorted(begun)


def compare(state: State, prices: dict[int, list[int]], result: Result) -> None:
    """Rows of days, refused rows and periods against those that landed."""
    items = [(f"i{n}", price, day) for day, today in prices.items() for n, price in enumerate(today)]
    refused = [(f"i{n}", None, day) for day in prices for n in range(BAD)]
    began = "day(valid_from - INTERVAL 1 SECOND)"
    for sql, expected in (
        (f"SELECT item_id, price::INT, day(snapshot_date) FROM {NAME}", items),
        (f"SELECT row_key->>'item_id', NULL, day(snapshot_date) FROM {NAME}_rejected", refused),
        (f"SELECT item_id, price::INT, {began} FROM {NAME}_history", expected_history(prices)),
        (
            f"SELECT item_id, price::INT, {DAYS} FROM {NAME}_history WHERE is_current",
            [i for i in items if i[2] == DAYS],
        ),
    ):
        child = state.command(
            "sql",
            f"SELECT to_json([a::VARCHAR, b::VARCHAR, c::VARCHAR]) AS j FROM ({sql}) t(a, b, c)",
            "--format",
            "json",
        )
        if child.wait():
            result.problems.append(f"{sql}: {child.text()[-2000:]}")
            continue
        found = Counter(str(row["j"]) for row in json.loads(child.text()))
        wanted = Counter(
            json.dumps([None if v is None else str(v) for v in row], separators=(",", ":")) for row in expected
        )
        lost, doubled = (wanted - found).total(), (found - wanted).total()
        result.lost += lost
        result.doubled += doubled
        result.require(
            not lost + doubled, f"{sql}: missing {wanted - found}, too many {found - wanted}, {state.folder}"
        )
