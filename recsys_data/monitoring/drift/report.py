"""The report on a day of a dataset: each column with its distance to the reference, and from where on that is drift.

The reference of a day are the same weekdays of the weeks before; with fewer than three of those, the days of the week
before. A limit is that of the contract, but at least three times what the reference days differ among themselves
(nine times for PSI, which grows with the square), and more than samples of this size differ by chance.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median

import msgspec

from recsys_data.background import gives_way
from recsys_data.contracts.drift import DriftLimits
from recsys_data.contracts.model import Contract
from recsys_data.days import date_of, day_key, day_number
from recsys_data.errors import UserError
from recsys_data.monitoring.drift.columns import MISSING, ROWS, Compared, compared_of, is_watched
from recsys_data.monitoring.drift.counts import Counter
from recsys_data.monitoring.drift.measures import Distance, bins_of, distances
from recsys_data.settings import Settings
from recsys_data.sql import open_session
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.tables import Lake

PSI, JENSEN_SHANNON, NULL_SHARE, VOLUME = "psi", "jensen_shannon", "null_share", "volume"
WEEK, LEAST_DAYS, THIN = 7, 3, 0.1
# How much more than the reference days differ among themselves.
NOISE = 3.0
# Normal deviate of one in a million: hundreds of columns are evaluated each day.
CHANCE, CHANCE_LOG = 4.75, math.log(1e6)


class Bin(msgspec.Struct, frozen=True):
    """A bin of a distribution with its shares."""

    name: str
    before: float
    now: float


class Finding(msgspec.Struct, frozen=True):
    """One measure of one column on the day.

    Attributes:
        column: as in `Compared.name`.
        measure: psi, jensen_shannon, null_share or volume.
        value: how far the day is from its reference; of null_share the change, of volume the ratio to the median.
        threshold: from where on it has drifted.
        rows: that were compared.
        drifted: whether it has.
        explanation: what changed most.
        part: of null_share: the rows that it is of, by the value of the column that says what a row is.
    """

    column: str
    measure: str
    value: float
    threshold: float
    rows: int
    drifted: bool
    explanation: str
    part: str = ""


class DriftReport(msgspec.Struct, frozen=True):
    """What was found of one day of a dataset.

    Attributes:
        day: 2026-11-22; None if nothing is stored.
        reference: the days that it was compared with.
        seasonal: whether these are the same weekdays.
        rows: of the day.
        findings: all that was compared, what drifted most first.
        note: why nothing was compared; empty if something was.
        worst: of what drifted most, the bins.
    """

    dataset: str
    day: str | None
    reference: list[str]
    seasonal: bool
    rows: int
    findings: list[Finding]
    note: str = ""
    worst: list[Bin] = []

    @property
    def drifted(self) -> list[Finding]:
        return [one for one in self.findings if one.drifted]


def watched(contracts: Mapping[str, Contract]) -> list[str]:
    """The datasets whose days are compared: streams, snapshots and views of events, unless their contract says no."""
    return [one.name for one in contracts.values() if is_watched(one)]


@gives_way
def drift(lake: Lake, settings: Settings, name: str, day: str | None = None) -> DriftReport:
    """Compare a day of a dataset with its reference.

    Args:
        lake: where it is.
        settings: say how much memory is used before it spills.
        name: of the dataset.
        day: e.g. 2026-11-22; None: the last day that is complete.

    Raises:
        UserError: the dataset is not watched.
    """
    if name not in watched(lake.contracts):
        raise UserError(f"{name} is not watched for drift; expected one of {', '.join(watched(lake.contracts))}.")
    contract = lake.contracts[name]
    limits = contract.drift
    assert limits
    stored = {number: one.rows for number, one in days_of(lake.table(name)).items()}
    evaluated = day_number(day) if day else _last_complete(contract, stored)
    if evaluated is None or evaluated not in stored:
        return DriftReport(name, day, [], False, 0, [], "Nothing is stored of that day." if day else "No day is over.")
    rows = stored[evaluated]
    window = {one: stored[one] for one in range(evaluated - WEEK * max(1, limits.weeks), evaluated) if one in stored}
    # Late events make thin days before the first real one.
    least = max(limits.rows, max(window.values(), default=0) * THIN)
    reference, seasonal = reference_days([one for one in window if window[one] >= least], evaluated, limits.weeks)
    report = DriftReport(name, day_key(evaluated), [*map(day_key, reference)], seasonal, rows, [])
    if len(reference) < LEAST_DAYS:
        note = f"Only {len(reference)} days to compare with have {least:.0f} rows; {LEAST_DAYS} are needed."
        return msgspec.structs.replace(report, note=note)
    volume = _volume(evaluated, rows, [stored.get(one, 0) for one in reference], limits, seasonal)
    if rows < limits.rows:
        note = f"The day has {rows} rows; columns are compared from {limits.rows} on."
        return msgspec.structs.replace(report, findings=[volume], note=note)
    with open_session(parallel=True, memory_bytes=settings.history_memory_mb * 1_000_000) as connection:
        compared = [one for one in compared_of(contract, lake.contracts) if one.kind != ROWS]
        Counter(connection, lake, contract, compared, evaluated, reference).count()
        evaluated_parts = _evaluate(compared, distances(connection, evaluated), evaluated)
        found = sorted([*evaluated_parts, (-1, volume)], key=lambda one: -_excess(one[1]))
        series, worst = next((one for one in found if one[0] >= 0), (-1, volume))
        bins = bins_of(connection, series, worst.part, evaluated)
    return msgspec.structs.replace(
        report,
        findings=[one for _, one in found],
        worst=[Bin(one, before or 0.0, now or 0.0) for one, before, now in bins],
    )


def reference_days(stored: Collection[int], day: int, weeks: int) -> tuple[list[int], bool]:
    """The stored days that a day is compared with, and whether these are the same weekdays.

    >>> reference_days(range(100), 99, 4)
    ([92, 85, 78, 71], True)
    >>> reference_days(range(90, 100), 99, 4)
    ([98, 97, 96, 95, 94, 93, 92], False)
    """
    same = [one for ago in range(1, weeks + 1) if (one := day - WEEK * ago) in stored]
    if len(same) >= LEAST_DAYS:
        return same, True
    return [one for ago in range(1, WEEK + 1) if (one := day - ago) in stored], False


def _last_complete(contract: Contract, stored: Collection[int]) -> int | None:
    today = day_number(datetime.now(UTC).date())
    # A snapshot is published whole.
    return max((day for day in stored if day < today or (contract.is_snapshot and day == today)), default=None)


def _evaluate(compared: Sequence[Compared], found: Sequence[Distance], day: int) -> list[tuple[int, Finding]]:
    by_part: dict[tuple[int, str], list[Distance]] = {}
    for one in found:
        by_part.setdefault((one.series, one.part), []).append(one)
    findings: dict[tuple[int, str], Finding] = {}
    for (series, part), days in by_part.items():
        one = compared[series]
        own = next((it for it in days if it.day == day), None)
        others = [it for it in days if it.day != day]
        least = one.limits.rows
        if own is None or own.rows < least or own.others < least or len(others) < LEAST_DAYS:
            continue
        evaluate = _missing if one.kind == MISSING else _values
        for finding in evaluate(one, own, others):
            key = series, finding.measure
            # Of a column's parts the one that drifted most stands for all.
            if key not in findings or _excess(finding) > _excess(findings[key]):
                findings[key] = msgspec.structs.replace(finding, part=part)
    return [(series, finding) for (series, _), finding in findings.items()]


def _values(one: Compared, own: Distance, others: Sequence[Distance]) -> list[Finding]:
    # Between samples of one distribution PSI is chi-squared over the sizes, and 8 ln 2 times the divergence.
    chance = _chi_squared(own.bins - 1) * (1 / own.units + 1 / own.other_units)
    measured: list[tuple[str, float, Callable[[Distance], float], float, float]] = [
        (PSI, one.limits.psi, lambda it: it.psi, NOISE**2, chance),
        (JENSEN_SHANNON, one.limits.jensenShannon, lambda it: it.jensen_shannon, NOISE, math.sqrt(chance / 8 / _LN2)),
    ]
    explanation = ", ".join(f"{it['name']} {it['before']:.1%} -> {it['now']:.1%}" for it in own.changed)
    found = []
    for measure, limit, value_of, noise, by_chance in measured:
        value = value_of(own)
        threshold = max(limit, noise * median(map(value_of, others)), by_chance)
        found.append(Finding(one.name, measure, value, threshold, own.rows, value > threshold, explanation))
    # PSI of bins that one side lacks is large by chance too, and the other distance small where most values are alike.
    both = all(it.drifted for it in found)
    return [msgspec.structs.replace(it, drifted=both) for it in found]


_LN2 = math.log(2)


def _chi_squared(degrees: int) -> float:
    """What chi-squared exceeds once in a million (Wilson and Hilferty 1931).

    >>> round(_chi_squared(9))
    46
    """
    part = 2 / (9 * degrees) if degrees else 0.0
    return degrees * (1 - part + CHANCE * math.sqrt(part)) ** 3


def _missing(one: Compared, own: Distance, others: Sequence[Distance]) -> list[Finding]:
    change = own.missing
    nulls = next((it for it in own.changed if it["name"] == "NULL"), {"before": 0.0, "now": 0.0})
    both = (nulls["before"] * own.others + nulls["now"] * own.rows) / (own.others + own.rows)
    deviation = math.sqrt(both * (1 - both) * (1 / own.units + 1 / own.other_units))
    noise = NOISE * median(abs(it.missing) for it in others)
    # Bernstein's inequality, because the normal tail is too short for a value that few have.
    threshold = max(one.limits.nullShare, noise, CHANCE * deviation + CHANCE_LOG * 2 / 3 / own.units)
    of = f"{own.part}: " if own.part else ""
    explanation = f"{of}NULL {nulls['before']:.1%} -> {nulls['now']:.1%}"
    drifted = abs(change) > threshold
    return [Finding(one.name, NULL_SHARE, abs(change), threshold, own.rows, drifted, explanation)]


def _volume(day: int, rows: int, others: Sequence[int], limits: DriftLimits, seasonal: bool) -> Finding:
    middle = median(others)
    logs = [abs(math.log(one / middle)) for one in others]
    threshold = max(limits.volume, math.exp(NOISE * median(logs)))
    ratio = rows / middle
    days = f"{len(others)} {date_of(day):%A}s" if seasonal else f"the {len(others)} days before"
    explanation = f"{rows:,} rows; the median of {days} is {middle:,.0f}"
    value = max(ratio, 1 / ratio)
    return Finding("rows", VOLUME, value, threshold, rows, value > threshold, explanation)


def _excess(one: Finding) -> float:
    """How far above its threshold a value is, in multiples of it."""
    if one.measure == VOLUME:
        return math.log(one.value) / math.log(one.threshold) if one.threshold > 1 else one.value
    return one.value / one.threshold if one.threshold else one.value
