"""The check `feedback_loop` as Dagster sees it: what each model showed, as a table, a picture and numbers to plot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.defs.markdown import picture, table

if TYPE_CHECKING:
    from recsys_data.monitoring.feedback import ModelDay

DESCRIPTION = (
    "No model is clicked, or bought from, a quarter less often on its last final day than in the week before. What "
    "models show (coverage, concentration, new items, popularity) is listed."
)


def result_of(found: "Sequence[ModelDay]") -> dg.AssetCheckResult:
    """The result of the check; it passes where nothing was recommended."""
    from recsys_data.monitoring.feedback import by_measure, falls

    fallen = falls(found)
    metadata: dict[str, Any] = {"models that fell": len({one.model for one in fallen})}
    for model, one in {one.model: one for one in found if one.matured}.items():
        metadata |= {f"clicks per impression {model}": one.clicks.rate, f"Gini {model}": one.gini}
        if one.coverage is not None:
            metadata[f"coverage {model}"] = one.coverage
    head = ["day", "model", "impressions", "items", "coverage", "Gini", "top 1 %", "new", "popularity", "clicks"]
    rows = [
        [one.day, one.model, one.impressions, one.items]
        + [None if it is None else round(it, 3) for it in (one.coverage, one.gini, one.top_share, one.new_share)]
        + [None if one.popularity is None else round(one.popularity, 2), _rate(one)]
        for one in found
    ]
    metadata["by model and day"] = dg.MetadataValue.md(table(head, rows))
    if series := by_measure(found):
        from recsys_data.monitoring.plots import lines_png

        metadata["over days"] = dg.MetadataValue.md(picture(lines_png(series)))
    said = [f"{one.model}: {one.outcome} {one.before:.2%} -> {one.now:.2%} on {one.day}" for one in fallen]
    return dg.AssetCheckResult(
        passed=not fallen, severity=dg.AssetCheckSeverity.WARN, description="; ".join(said) or None, metadata=metadata
    )


def _rate(one: "ModelDay") -> str:
    rate = one.clicks
    return f"{rate.rate:.2%} ({rate.low:.2%} to {rate.high:.2%}){'' if one.matured else ', not final'}"
