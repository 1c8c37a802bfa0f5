"""How much better a variant of a scenario does than another, from what `outcomes` counts.

Differences of rates have Newcombe's interval of 95 % (Statistics in Medicine 17, 1998, method 10) over the intervals of
both, which allow for visitors; ratios have one that is symmetric in logarithms. Visitors must be in one variant of a
scenario each, as serving has it.
"""

from collections.abc import Mapping
from datetime import datetime
from math import exp, log, sqrt
from typing import TYPE_CHECKING

import msgspec

from recsys_data.errors import UserError
from recsys_data.serving.bots import connect_events
from recsys_data.serving.outcomes import NORMAL_95, Share, counted, effect_of, rate_of
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb

CONTROL = "control"
MEASURES = ("clicked", "bought")


class Uplift(msgspec.Struct, frozen=True, kw_only=True):
    """How much more often what a variant shows is clicked or bought than what the baseline of its scenario shows.

    Attributes:
        scenario, variant, baseline: names.
        measure: `clicked` or `bought`.
        rate, baseline_rate: shares of what was shown.
        difference: rate - baseline_rate.
        relative: rate / baseline_rate - 1; None where one of them is 0.
    """

    scenario: str | None
    variant: str
    baseline: str
    measure: str
    rate: Share
    baseline_rate: Share
    difference: Share
    relative: Share | None


def uplifts(lake: Lake, since: datetime | None = None, baseline: str | None = None) -> list[Uplift]:
    """Every variant against the baseline of its scenario, of what was shown at `since` or later.

    Args:
        lake: where events are.
        since: None: of all.
        baseline: the variant to compare with; None: `control`, or else the one that was shown most.

    Raises:
        UserError: no scenario has such a variant.
    """
    connection, contexts = connect_events(lake)
    with connection:
        return uplifts_of(connection, since, baseline, contexts)


def uplifts_of(
    connection: "duckdb.DuckDBPyConnection",
    since: datetime | None = None,
    baseline: str | None = None,
    contexts: bool = False,
) -> list[Uplift]:
    """The same, of a session with a view `interactions` and, if `contexts`, one of that name."""
    scenarios: dict[str | None, dict[str, Mapping[str, int]]] = {}
    for scenario, _, variant, sums, _, _ in counted(connection, since, contexts, by_model=False):
        if variant is not None and sums["shown"]:
            scenarios.setdefault(scenario, {})[variant] = sums
    if baseline is not None and not any(baseline in variants for variants in scenarios.values()):
        known = sorted({variant for variants in scenarios.values() for variant in variants})
        raise UserError(f"No scenario has shown a variant {baseline!r}. There are: {', '.join(known) or 'none'}.")
    found = []
    for scenario, variants in scenarios.items():
        most_shown = max(variants, key=lambda name: variants[name]["shown"])
        against = baseline or (CONTROL if CONTROL in variants else most_shown)
        if against not in variants:
            continue
        for variant, sums in variants.items():
            if variant != against:
                found += [_uplift(scenario, variant, against, one, sums, variants[against]) for one in MEASURES]
    return found


def _uplift(
    scenario: str | None,
    variant: str,
    against: str,
    measure: str,
    sums: Mapping[str, int],
    of_baseline: Mapping[str, int],
) -> Uplift:
    one, other = rate_of(sums, measure), rate_of(of_baseline, measure)
    difference = one.value - other.value
    down = sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    up = sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    relative = None
    if one.value and other.value:
        error = sqrt(_log_variance(sums, measure) + _log_variance(of_baseline, measure))
        ratio = log(one.value / other.value)
        relative = Share(*(exp(ratio + way * NORMAL_95 * error) - 1 for way in (0, -1, 1)))
    return Uplift(
        scenario=scenario,
        variant=variant,
        baseline=against,
        measure=measure,
        rate=one,
        baseline_rate=other,
        difference=Share(difference, difference - down, difference + up),
        relative=relative,
    )


def _log_variance(sums: Mapping[str, int], measure: str) -> float:
    """Of the logarithm of a rate (delta method)."""
    count, shown = sums[measure], sums["shown"]
    return effect_of(sums, measure) * (1 - count / shown) / count
