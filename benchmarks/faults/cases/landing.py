"""Days of a catalogue in a landing folder, and what the lake must hold of them in the end."""

import json
import random
from collections import Counter
from collections.abc import Iterable

from benchmarks.faults.harness.result import Result
from benchmarks.faults.harness.state import State

NAME = "item_catalog"
ITEMS = 12
BAD = 2
# The price of each item, by day of January 2026.
Prices = dict[int, dict[int, int]]


def land(state: State, day: int, rng: random.Random, kept: Iterable[int] | None = None) -> dict[int, int]:
    """Write a day's catalogue: some prices change, and some rows break the contract (an item twice)."""
    prices = {n: rng.randint(1, 2) if n < 4 else 1 for n in (range(ITEMS) if kept is None else kept)}
    rows = [{"item_id": f"i{n}", "title": "T", "price": p, "currency": "EUR"} for n, p in prices.items()]
    rows += [{"item_id": f"i{n}", "title": "twice"} for n in list(prices)[:BAD]]
    folder = state.dir / "landing" / NAME / f"2026-01-{day:02d}"
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prices


def rows_of(prices: Prices) -> int:
    """How many rows landed."""
    return sum(len(today) + BAD for today in prices.values())


def expected_history(prices: Prices) -> list[tuple[str, int, int]]:
    """Item, price and the day before whose end it became known, for each time that a price begins to hold.

    >>> expected_history({1: {0: 5}, 2: {0: 5}, 3: {0: 6}, 4: {}, 5: {0: 6}})
    [('i0', 5, 1), ('i0', 6, 3), ('i0', 6, 5)]
    """
    begun = []
    before: dict[int, int] = {}
    for day, today in sorted(prices.items()):
        begun += [(f"i{n}", price, day) for n, price in today.items() if before.get(n) != price]
        before = today
    return sorted(begun)


def compare(state: State, prices: Prices, result: Result) -> None:
    """Rows of days, refused rows and periods against those that landed."""
    last = max(prices)
    items = [(f"i{n}", price, day) for day, today in prices.items() for n, price in today.items()]
    refused = [(f"i{n}", None, day) for day, today in prices.items() for n in list(today)[:BAD]]
    current = [item for item in items if item[2] == last]
    began = "day(valid_from - INTERVAL 1 SECOND)"
    for sql, expected in (
        (f"SELECT item_id, price::INT, day(snapshot_date) FROM {NAME}", items),
        (f"SELECT row_key->>'item_id', NULL, day(snapshot_date) FROM {NAME}_rejected", refused),
        (f"SELECT item_id, price::INT, {began} FROM {NAME}_history", expected_history(prices)),
        (f"SELECT item_id, price::INT, {last} FROM {NAME}_history WHERE is_current", current),
    ):
        query = f"SELECT to_json([a::VARCHAR, b::VARCHAR, c::VARCHAR]) AS j FROM ({sql}) t(a, b, c)"
        child = state.command("sql", query, "--format", "json")
        if child.wait():
            result.problems.append(f"{sql}: {child.text()[-2000:]}")
            continue
        found = Counter(str(row["j"]) for row in json.loads(child.text()))
        texts = ([None if value is None else str(value) for value in row] for row in expected)
        wanted = Counter(json.dumps(row, separators=(",", ":")) for row in texts)
        lost, doubled = (wanted - found).total(), (found - wanted).total()
        result.lost += lost
        result.doubled += doubled
        differ = f"missing {wanted - found}, too many {found - wanted}"
        result.require(not lost + doubled, f"{sql}: {differ}, {state.folder}")
