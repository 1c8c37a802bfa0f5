"""The check `drift` as Dagster sees it: a table and a picture of what drifted, and distances that the UI plots."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.defs.markdown import picture, table

if TYPE_CHECKING:
    from recsys_data.monitoring.drift import DriftReport

DESCRIPTION = (
    "The last day that is over is like the same weekdays before it (with fewer than three of those, like the week "
    "before): the values of each column, its share of NULL, and the number of rows."
)
WARN = dg.AssetCheckSeverity.WARN
MOST_LISTED = 30
PLOTTED = ("psi", "null_share")


def result_of(report: "DriftReport") -> dg.AssetCheckResult:
    """The result of the check; it passes where nothing can be compared yet."""
    columns = list(dict.fromkeys(one.column for one in report.drifted))
    metadata: dict[str, Any] = {
        "columns drifted": len(columns),
        "columns compared": len({one.column for one in report.findings}),
        "rows": report.rows,
        "day": report.day or "none",
        "compared with": ", ".join(report.reference) or report.note,
    }
    if report.findings:
        head = ["column", "measure", "value", "threshold", "changed"]
        shown = report.drifted or report.findings[:5]
        rows = [
            [one.column, one.measure, round(one.value, 4), round(one.threshold, 4), one.explanation]
            for one in shown[:MOST_LISTED]
        ]
        metadata["drifted" if report.drifted else "nothing drifted; nearest to it"] = dg.MetadataValue.md(
            table(head, rows)
        )
    if report.drifted and report.worst:
        from recsys_data.monitoring.plots import bins_png

        metadata[f"{columns[0]} before and now"] = dg.MetadataValue.md(picture(bins_png(report)))
    for one in report.findings:
        if one.measure in PLOTTED:
            metadata[f"{one.measure} {one.column}"] = round(one.value, 6)
    return dg.AssetCheckResult(
        passed=not columns,
        severity=WARN,
        description="; ".join(f"{one.column}: {one.explanation}" for one in report.drifted[:3]) or report.note or None,
        metadata=metadata,
    )
