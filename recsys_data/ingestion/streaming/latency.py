"""How long accepted events took from their receipt until they could be queried, from the ledger of the last commits."""

import msgspec

from recsys_data.ingestion.streaming.positions import main_dataset
from recsys_data.storage.ledger import Latency, Ledger, read_ledger
from recsys_data.storage.tables import Lake


class LatencyStatus(msgspec.Struct, frozen=True):
    """Seconds from receipt to queryable over the last commits; None where nothing was measured."""

    p50_s: float | None
    p95_s: float | None


def main_ledger(lake: Lake) -> Ledger:
    """The ledger whose counts are shown; an empty one before the first consumer."""
    name = main_dataset(lake.contracts)
    return read_ledger(lake.table(name)) if lake.exists(name) else Ledger()


def latency_of(latencies: tuple[Latency, ...]) -> LatencyStatus:
    """Quantiles over several commits, each weighted by its events.

    >>> latency_of((Latency(0.0, 10, tuple(float(i) for i in range(10))),))
    LatencyStatus(p50_s=4.5, p95_s=9.0)
    >>> latency_of(())
    LatencyStatus(p50_s=None, p95_s=None)
    """
    points = sorted((value, one.events / len(one.deciles)) for one in latencies for value in one.deciles)
    total = sum(weight for _, weight in points)
    if not total:
        return LatencyStatus(None, None)
    import numpy as np

    weights = np.array([weight for _, weight in points])
    # Each stored decile stands for the middle of its tenth.
    middles = (np.cumsum(weights) - weights / 2) / total
    p50, p95 = np.interp([0.5, 0.95], middles, [value for value, _ in points])
    return LatencyStatus(round(float(p50), 3), round(float(p95), 3))
