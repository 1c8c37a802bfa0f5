"""Drives a Python SDK as an application would: python_sdk.py <module> <host> <write key> <calls>.

Prints a JSON object: the id of each message, and how many events it stands for.
"""

import importlib
import json
import sys
from datetime import UTC, datetime

PRODUCT = {"product_id": 5, "sku": "G-32", "price": "18.99", "quantity": 1, "name": "Monopoly"}
ORDER = {"order_id": "o1", "currency": "USD", "total": 27.5, "products": [PRODUCT, {**PRODUCT, "product_id": 6}]}
LIST = {"list_id": "deals", "products": [PRODUCT, {"product_id": "7"}, {"product_id": "8"}]}
CALLS = [
    ("track", {"event": "Product Viewed", "properties": PRODUCT}, 1),
    ("track", {"event": "Order Completed", "properties": ORDER}, 2),
    ("track", {"event": "Product List Viewed", "properties": LIST}, 3),
    ("track", {"event": "Song Played", "properties": {"at": datetime(2026, 1, 2, tzinfo=UTC)}}, 1),
    ("page", {"name": "Home", "category": "Docs", "properties": {"path": "/"}}, 1),
    ("screen", {"name": "Home"}, 1),
    ("identify", {"traits": {"plan": "pro"}}, 1),
    ("alias", {"previous_id": "before"}, 1),
    ("group", {"group_id": "g1", "traits": {"name": "Initech"}}, 1),
]


def main(module: str, host: str, key: str, calls: int) -> None:
    failures: list[object] = []
    client = importlib.import_module(module).Client(key, host=host, on_error=lambda error, _: failures.append(error))
    expected = {}
    for number in range(calls):
        call, arguments, events = CALLS[number % len(CALLS)]
        queued, message = getattr(client, call)(user_id=f"u{number}", **arguments)
        assert queued
        expected[message["messageId"]] = events
    client.shutdown()
    assert not failures, failures
    print(json.dumps(expected))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:4], calls=int(sys.argv[4]))
