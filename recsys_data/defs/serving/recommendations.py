"""What came of recommendations, at the end of the lineage: outcomes by scenario, model and variant, every hour.

Data flow: interactions (impressions, clicks and purchases), models -> outcomes, estimates of challengers, delays ->
metadata. Run alone: `dagster asset materialize --select recommendations -m recsys_data.definitions`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.contracts import Contract
from recsys_data.defs.automation import after_sources, of_any_day
from recsys_data.defs.markdown import table
from recsys_data.defs.storage.maintenance import canceled_when_stopped
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.sets.declared import usable_sets

if TYPE_CHECKING:
    from recsys_data.serving.estimates import Estimated
    from recsys_data.serving.outcomes import Outcomes, Share
    from recsys_data.training.off_policy import Estimate

NAME = "recommendations"
HOURLY = "5 * * * *"
WINDOW = timedelta(days=7)


def definitions(contracts: Mapping[str, Contract], settings: Settings) -> dg.Definitions:
    """The asset, where there are interactions."""
    if "interactions" not in contracts:
        return dg.Definitions()
    sets = usable_sets(contracts, *settings.contract_dirs).values()
    models = [dg.AssetKey([one.name, name]) for one, _ in sets for name in one.models]

    @dg.asset(
        name=NAME,
        group_name="serving",
        description="What was shown, clicked and bought in the last seven days, by scenario, model and variant; what "
        "challengers would be worth; and how long events took to an answer.",
        deps=[of_any_day(dg.AssetKey("interactions")), *models],
        automation_condition=after_sources(HOURLY),
        op_tags={"dagster/max_runtime": "3600"},
    )
    def recommendations(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        from recsys_data.serving.delays import stored_delays
        from recsys_data.serving.estimates import estimates
        from recsys_data.serving.online.lag import OnlineLag, lag_now
        from recsys_data.serving.outcomes import outcomes

        since = datetime.now(UTC) - WINDOW
        with canceled_when_stopped(context):
            found = outcomes(lake, since)
            challengers = estimates(lake, settings, since)
            delays = stored_delays(lake)
        metadata = _metadata(found, challengers)
        if delays.p95_s is not None:
            metadata |= {"event to answer, p50 s": delays.p50_s, "event to answer, p95 s": delays.p95_s}
        if isinstance(lag := lag_now(lake, settings), OnlineLag):
            metadata |= {"online store, rows behind": lag.rows, "online store, positions": lag.positions}
        return dg.MaterializeResult(metadata=metadata)

    return dg.Definitions(assets=[recommendations])


def _metadata(found: "Sequence[Outcomes]", challengers: "Sequence[Estimated]") -> dict[str, Any]:
    head = ["scenario", "model", "variant", "answers", "shown", "clicked", "bought", "revenue", "visitors", "to bots"]
    rows = [
        [one.scenario, one.model, one.variant, one.answers, one.shown, _rate(one.click_rate), _rate(one.purchase_rate)]
        + [round(one.revenue, 2), one.visitors, one.shown_to_bots]
        for one in found
    ]
    estimated = [
        [one.scenario, one.challenger, one.answers, _estimate(one.on_policy) or one.missing]
        + [_estimate(one.snips), _estimate(one.dr)]
        for one in challengers
    ]
    return {
        "dagster/row_count": len(found),
        "answers": sum(one.answers for one in found),
        "outcomes": dg.MetadataValue.md(table(head, rows)),
        "challengers": dg.MetadataValue.md(
            table(["scenario", "challenger", "answers", "clicks now", "SNIPS", "DR"], estimated)
        ),
    }


def _rate(share: "Share") -> str:
    return f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"


def _estimate(one: "Estimate | None") -> str:
    return f"{one.value:.2%} ({one.low:.2%} to {one.high:.2%})" if one else ""
