"""The check `bots` as Dagster sees it: how much of the traffic is of bots, as a table, a picture and numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.defs.markdown import picture, table

if TYPE_CHECKING:
    from recsys_data.monitoring.bots import BotDay

DESCRIPTION = (
    "On the last day that is over, bots (crawlers by their user agent, visitors by their speed) did not cause three "
    "times the usual share of the events, if that is 5 % or more. What was shown to bots is in no outcome."
)


def result_of(found: "Sequence[BotDay]") -> dg.AssetCheckResult:
    """The result of the check; it passes where there are no events."""
    from recsys_data.monitoring.bots import by_measure, surge
    from recsys_data.monitoring.plots import lines_png

    metadata: dict[str, Any] = {}
    if found:
        last = found[-1]
        metadata = {
            "bots' share of events": last.share,
            "bots": last.bot_visitors,
            "crawlers": last.crawlers,
            "impressions to bots": last.bot_impressions,
        }
        head = ["day", "events", "of bots", "impressions", "to bots", "visitors", "bots", "crawlers"]
        rows = [
            [one.day, one.events, one.bot_events, one.impressions, one.bot_impressions]
            + [one.visitors, one.bot_visitors, one.crawlers]
            for one in found
        ]
        metadata["by day"] = dg.MetadataValue.md(table(head, rows))
        metadata["over days"] = dg.MetadataValue.md(picture(lines_png(by_measure(found))))
    came = surge(found)
    said = f"Bots caused {came[1]:.1%} of the events of {found[-1].day}, usually {came[0]:.1%}." if came else None
    return dg.AssetCheckResult(
        passed=came is None, severity=dg.AssetCheckSeverity.WARN, description=said, metadata=metadata
    )
