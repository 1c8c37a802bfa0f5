"""`recsys-data drift`: whether a day differs from the days before it."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

if TYPE_CHECKING:
    from recsys_data.monitoring.drift import DriftReport

MOST_SHOWN = 20


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data drift",
        "recsys-data drift --dataset interactions --day 2026-11-22",
        "recsys-data drift --json | jq '.[] | select(.findings | any(.drifted))'",
    ],
)
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="The day. Default: the last that is over, of each.")
@click.option("--dataset", "names", multiple=True, help="A dataset; may be given several times. Default: all.")
@click.option("--all", "show_all", is_flag=True, help="Also show what did not drift.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts: everything that was compared.")
def drift(day: datetime | None, names: tuple[str, ...], show_all: bool, as_json: bool) -> None:
    """Compare a day of streams, snapshots and feature views with the same weekdays before it.

    With fewer than three of those it is compared with the week before. Thresholds are in the contracts, in the custom
    property `drift` of a dataset or a column. The exit code is 0 also if something drifted.
    """
    from recsys_data.cli.support.terminal import print_json, print_table, watched
    from recsys_data.monitoring import drift as monitoring

    reports = []
    with opened() as platform, watched().status("Comparing") as shown:
        for name in names or monitoring.watched(platform.lake.contracts):
            shown.update(f"Comparing {name}")
            given = day.date().isoformat() if day else None
            reports.append(monitoring.drift(platform.lake, platform.settings, name, given))
    if as_json:
        print_json(reports)
        return
    print_table(
        ("dataset", "day", "rows", "compared with", "compared", "drifted", ""),
        [_line(report) for report in reports],
        right=("rows", "compared", "drifted"),
    )
    rows = [
        (report.dataset, one.column, one.measure, f"{one.value:.3g}", f"{one.threshold:.3g}", one.explanation)
        for report in reports
        for one in (report.findings if show_all else report.drifted)[: None if show_all else MOST_SHOWN]
    ]
    if rows:
        click.echo()
        print_table(
            ("dataset", "column", "measure", "value", "threshold", "changed"), rows, right=("value", "threshold")
        )


def _line(report: "DriftReport") -> tuple[object, ...]:
    columns = {one.column for one in report.findings}
    drifted = {one.column for one in report.drifted}
    kind = "same weekdays" if report.seasonal else "days before"
    reference = f"{len(report.reference)} {kind}" if report.reference else "-"
    return report.dataset, report.day or "-", f"{report.rows:,}", reference, len(columns), len(drifted), report.note
