"""What counts as drift of a dataset or a column: limits from the custom property `drift` of a contract."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from recsys_data.errors import ContractError

PROPERTY = "drift"


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """From where on a day differs from its reference; days that vary more among themselves have higher limits.

    Attributes:
        psi: population stability index of a column's values.
        jensenShannon: their Jensen-Shannon distance (base 2, from 0 to 1).
        nullShare: by how much the share of NULL may change, from 0 to 1.
        volume: by which factor the number of rows may change, above 1.
        rows: a day, or a part of it, with fewer rows is not evaluated.
        weeks: how many same weekdays before are the reference.
    """

    psi: float = 0.02
    jensenShannon: float = 0.06  # noqa: N815 - the name that contracts write
    nullShare: float = 0.05  # noqa: N815
    volume: float = 2.0
    rows: int = 100
    weeks: int = 4


DEFAULT_LIMITS = DriftLimits()
NAMES = tuple(field.name for field in fields(DriftLimits))


def limits_of(path: Path, where: str, given: Any, base: DriftLimits = DEFAULT_LIMITS) -> DriftLimits | None:
    """The limits that a contract gives, in place of those of `base`; None where it says `false`: nothing is compared.

    Raises:
        ContractError: a limit is unknown or makes no sense.
    """
    if given is None or given is True:
        return base
    if given is False:
        return None
    problem = _problem(given)
    if problem:
        raise ContractError(f"{path}: {where}: customProperties: drift {problem}.")
    return replace(base, **given)


def _problem(given: Any) -> str | None:
    if not isinstance(given, Mapping):
        return f"is {given!r}; expected limits ({', '.join(NAMES)}), or false"
    for name, value in given.items():
        if name not in NAMES:
            return f"has {name}; expected some of {', '.join(NAMES)}"
        whole = name in ("rows", "weeks")
        least = 1 if whole or name == "volume" else 0
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < least:
            return f"has {name}: {value!r}; expected a {'whole ' if whole else ''}number from {least} on"
    return None
