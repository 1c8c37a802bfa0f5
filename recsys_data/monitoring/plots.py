"""Pictures of what monitoring finds, for Dagster's UI."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys_data.monitoring.drift import DriftReport

MOST_BINS, LONGEST_NAME = 20, 24


def bins_png(report: "DriftReport") -> bytes:
    """Bars of the shares before and on the day, of what drifted most, as PNG."""
    from matplotlib.figure import Figure

    # A dollar sign would begin a formula.
    bins = sorted(report.worst, key=lambda one: -abs(one.now - one.before))[:MOST_BINS]
    bins = [one for one in report.worst if one in bins]
    names = [one.name[:LONGEST_NAME].replace("$", r"\$") for one in bins]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(bins))
    axes.bar([at - 0.2 for at in places], [one.before for one in bins], 0.4, label="reference")
    axes.bar([at + 0.2 for at in places], [one.now for one in bins], 0.4, label=report.day)
    axes.set_xticks(list(places), names, rotation=45 if len(bins) > 4 else 0, ha="right" if len(bins) > 4 else "center")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def lines_png(series: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]]) -> bytes:
    """Lines over days, a panel for each measure and a colour for each name, as PNG.

    Args:
        series: measure -> name -> (day, value) in order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(series), 2.8), layout="constrained")
    for axes, (measure, by_name) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        days = sorted({day for points in by_name.values() for day, _ in points})
        places = {day: at for at, day in enumerate(days)}
        for name, points in by_name.items():
            label = name[:LONGEST_NAME].replace("$", r"\$")
            axes.plot([places[day] for day, _ in points], [value for _, value in points], ".-", label=label)
        shown = range(0, len(days), max(1, len(days) // 4))
        axes.set_xticks(list(shown), [days[at][5:] for at in shown])
        axes.set_title(measure, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=7)
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()
