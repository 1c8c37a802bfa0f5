"""What is compared of a dataset: derived from the types of its contract's columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from recsys_data.contracts.drift import DEFAULT_LIMITS, DriftLimits
from recsys_data.contracts.features.datasets import stream_of
from recsys_data.contracts.model import Column, Contract, Kind
from recsys_data.contracts.servers import Reference
from recsys_data.contracts.types import decimal_of

CATEGORIES, ELEMENTS, NUMBERS, HOURS, MISSING, ROWS = "categories", "elements", "numbers", "hours", "missing", "rows"
WATCHED_KINDS = (Kind.EVENTS, Kind.EVENT_DETAILS, Kind.DEAD_LETTERS, Kind.SNAPSHOT, Kind.FEATURE_VIEW)


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that is compared.

    Attributes:
        name: the column, or `COLUMN.ATTRIBUTE` of the rows that the column refers to.
        kind: how: its categories, elements of its lists, numbers, hours of the day, missing values, or rows counted.
        limits: from where on it has drifted.
        column: of the dataset; empty for rows.
        reference: of an attribute, what is referred to.
        attribute: column of what is referred to.
    """

    name: str
    kind: str
    limits: DriftLimits
    column: str = ""
    reference: Reference | None = None
    attribute: str = ""


def is_watched(contract: Contract) -> bool:
    """Whether days of a dataset are compared.

    Views of histories are not: their rows of a day are what changed on it, which is no sample of anything.
    """
    of_events = contract.view is None or stream_of(contract.view) is not None
    return contract.kind in WATCHED_KINDS and contract.drift is not None and of_events


def compared_of(contract: Contract, contracts: Mapping[str, Contract]) -> list[Compared]:
    """Everything that is compared of a dataset; nothing if its contract says so.

    Keys and what the platform fills in are left out. Of personal texts, only whether they are missing is compared.
    """
    if contract.drift is None:
        return []
    found = [Compared("rows", ROWS, contract.drift)]
    for column in contract.columns:
        if column.drift is None:
            continue
        if column.partitioned and contract.is_stream:
            found.append(Compared(column.name, HOURS, column.drift, column.name))
        if column.system or column.key or column.partitioned:
            continue
        if not column.required:
            found.append(Compared(column.name, MISSING, column.drift, column.name))
        if kind := values_of(column):
            found.append(Compared(column.name, kind, column.drift, column.name))
    if contract.is_fed_by_events:
        found += _attributes(contract, contracts)
    return found


def _attributes(contract: Contract, contracts: Mapping[str, Contract]) -> Iterator[Compared]:
    """What the rows that events refer to are like, e.g. the categories of the items."""
    for reference in contract.references:
        limits = contract.column(reference.column).drift
        for column in contracts[reference.dataset].columns:
            if limits and column.drift and not (column.system or column.key) and (kind := values_of(column)):
                name = f"{reference.column}.{column.name}"
                own = column.drift if column.drift != DEFAULT_LIMITS else limits
                yield Compared(name, kind, own, reference.column, reference, column.name)


def values_of(column: Column) -> str | None:
    """How the values of a column are compared; None: they are not."""
    if column.type in ("integer", "number") or decimal_of(column.type):
        return NUMBERS
    if column.type == "boolean":
        return CATEGORIES
    if column.classification:
        return None
    return {"string": CATEGORIES, "list<string>": ELEMENTS}.get(column.type)


def parts_of(contract: Contract) -> str | None:
    """The column by whose values missing values are compared, because it says which columns a row has."""
    return next((one.name for one in contract.columns if one.required and one.enum and not one.key), None)
