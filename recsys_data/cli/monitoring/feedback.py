"""`recsys-data feedback`: what each model showed on each day, and what came of it."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

if TYPE_CHECKING:
    from recsys_data.monitoring.feedback import Rate


@click.command(
    cls=Exampled,
    examples=["recsys-data feedback", "recsys-data feedback --days 30 --json | jq '.[] | select(.coverage < 0.1)'"],
)
@click.option("--days", type=click.IntRange(min=1), default=7, show_default=True, help="How many days.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last of them. Default: the last that is over.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def feedback(days: int, until: datetime | None, as_json: bool) -> None:
    """Show by model and day what was recommended: coverage, concentration, new items, popularity, and what came of it.

    Impressions count that carry a recommendation_id. Clicks and purchases are those of the same recommendation and
    item within a day, per impression, with 95 % intervals over visitors; rates of days that are not final have a `*`.
    """
    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.monitoring import feedback as monitoring

    with opened() as platform:
        last = until.date().isoformat() if until else None
        found = monitoring.feedback(platform.lake, platform.settings, days, last)
    if as_json:
        print_json(found)
        return
    head = ("day", "model", "impressions", "visitors", "items", "coverage", "Gini", "top 1 %", "new", "popularity")
    rows = [
        (one.day, one.model, f"{one.impressions:,}", f"{one.visitors:,}", f"{one.items:,}", _share(one.coverage))
        + (f"{one.gini:.2f}", _share(one.top_share), _share(one.new_share), _times(one.popularity))
        + (_rate(one.clicks, one.matured), _rate(one.purchases, one.matured))
        for one in found
    ]
    print_table((*head, "clicks", "purchases"), rows, right=(*head[2:], "clicks", "purchases"))
    for fall in monitoring.falls(found):
        click.echo(f"{fall.model}: {fall.outcome} fell from {fall.before:.2%} to {fall.now:.2%} on {fall.day}.")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(rate: "Rate", matured: bool) -> str:
    return f"{rate.rate:.2%} ({rate.low:.2%} to {rate.high:.2%}){'' if matured else ' *'}"
