"""Where each stream table is in the event log, and which table says it for the lake."""

from collections.abc import Mapping

from recsys_data.contracts.model import Contract, Kind
from recsys_data.errors import Permanent
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.tables import Lake


def first_dataset(contracts: Mapping[str, Contract], main: str) -> str:
    """The dataset that is committed first: that of dead letters, which every consumer has whatever else it knows of."""
    rejects = [name for name, c in contracts.items() if c.kind is Kind.DEAD_LETTERS]
    return "dead_letters" if "dead_letters" in rejects else next(iter(rejects), main)


def primary_datasets(contracts: Mapping[str, Contract]) -> list[str]:
    """The datasets that take whole events: each accepted event is a row of at least one of them."""
    return [name for name, c in contracts.items() if c.kind is Kind.EVENTS]


def main_dataset(contracts: Mapping[str, Contract]) -> str:
    """The dataset whose ledger is shown: the first that takes whole events, `interactions` unless replaced."""
    primaries = primary_datasets(contracts)
    if not primaries:
        raise Permanent("No contract takes whole events (stream: events without rowFrom). Restore interactions.")
    return "interactions" if "interactions" in primaries else primaries[0]


def positions_of(lake: Lake, oldest: Mapping[int, int] | None = None) -> dict[int, int]:
    """Where a consumer goes on in each log partition: the smallest position of any stream table.

    A table that was never fed from a partition begins with the `oldest` line that the log still keeps (0: unknown).
    """
    oldest = oldest or {}
    ledgers = [
        read_ledger(lake.table(name)) if lake.exists(name) else Ledger()
        for name, contract in lake.contracts.items()
        if contract.is_stream
    ]
    partitions = {partition for ledger in ledgers for partition in ledger.positions} | oldest.keys()
    return {p: min(ledger.positions.get(p, oldest.get(p, 0)) for ledger in ledgers) for p in partitions}
