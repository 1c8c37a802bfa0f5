"""What taking a snapshot did, and whether the contract lets it take the place of the last good one."""

from dataclasses import dataclass, field
from datetime import date, datetime

from recsys_data.contracts.model import Contract


@dataclass(frozen=True, slots=True)
class Compared:
    """A snapshot beside the last good one of an earlier day: rows, and keys that are gone, new or changed."""

    rows: int
    previous_day: date | None = None
    previous: int = 0
    lost: int = 0
    new: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What taking a snapshot did.

    Attributes:
        held: why it was held back; None when it was published.
        rejected: refused rows by reason.
        sources: rows read, by server.
    """

    name: str
    day: date
    as_of: datetime
    compared: Compared
    held: str | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def objection(contract: Contract, compared: Compared) -> str | None:
    """Why the contract wants such a snapshot held back; None if it does not."""
    for name, item in contract.checks.items():
        if item.get("severity") == "warning":
            continue
        least = item.get("mustBeGreaterThan")
        if item.get("metric") == "rowCount" and least is not None and compared.rows <= least:
            return f"{name}: it has {compared.rows:,} rows; expected more than {least:,}"
        limits = item.get("implementation")
        for option, count, verb in (
            ("maxShareLost", compared.lost, "are gone"),
            ("maxShareChanged", compared.changed, "are different"),
        ):
            most = limits.get(option) if isinstance(limits, dict) else None
            if most is not None and compared.previous and count > most * compared.previous:
                return (
                    f"{name}: {count:,} of {compared.previous:,} rows of {compared.previous_day} {verb} "
                    f"({count / compared.previous:.1%}); at most {most:.0%} may be"
                )
    return None
