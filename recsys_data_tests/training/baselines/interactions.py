"""Interactions for tests of models."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from recsys_data.training.tables import INTERACTIONS

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def interactions(*rows: tuple[str, str] | tuple[str, str, float] | tuple[str, str, float, float]) -> pa.Table:
    """Rows of user, item, day (0) and weight (1)."""
    whole: list[tuple] = [(*row, *(0.0, 1.0)[len(row) - 2 :]) for row in rows]
    columns = {
        "user_id": [row[0] for row in whole],
        "item_id": [row[1] for row in whole],
        "timestamp": [BEGIN + timedelta(days=row[2]) for row in whole],
        "weight": [row[3] for row in whole],
    }
    return pa.table(columns, schema=INTERACTIONS)


def tastes(seed: int = 0, users: int = 60, items: int = 40, each: int = 12) -> pa.Table:
    """Users who like one of four kinds of items, with sessions; item n is of the kind n % 4."""
    random = np.random.default_rng(seed)
    rows, sessions = [], []
    for user in range(users):
        for n in range(each):
            kind = user % 4 if random.random() < 0.9 else int(random.integers(4))
            item = 4 * int(random.integers(items // 4)) + kind
            rows.append(
                (f"u{user}", f"i{item:02}", float(random.integers(0, 90)) + n / 100, float(random.integers(1, 4)))
            )
            sessions.append(f"u{user}-{n // 4}")
    return interactions(*rows).append_column("session_id", pa.array(sessions))


def shuffled(table: pa.Table, seed: int = 1) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))
