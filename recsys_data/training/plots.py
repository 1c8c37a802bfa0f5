"""Pictures of metrics, for Dagster's UI."""

import io
from collections.abc import Mapping

MEASURES = ("nDCG@10", "R@10", "RR@10", "Success@10")


def metrics_png(measured: Mapping[str, Mapping[str, float | None]]) -> bytes:
    """Bars of measures, a group for each measure and a colour for each model, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(measured)
    for number, (name, metrics) in enumerate(measured.items()):
        places = [at + (number - (len(measured) - 1) / 2) * width for at in range(len(MEASURES))]
        bars = axes.bar(places, [metrics.get(measure) or 0.0 for measure in MEASURES], width, label=name)
        axes.bar_label(bars, fmt="%.3f", fontsize=7)
    axes.set_xticks(range(len(MEASURES)), MEASURES)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110)
    return target.getvalue()
