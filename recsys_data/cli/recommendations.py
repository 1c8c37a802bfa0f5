"""`recsys-data recommendations`: what became of what was recommended."""

from datetime import datetime

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.command(cls=Exampled, examples=["recsys-data recommendations", "recsys-data recommendations --since 2026-11-01"])
@click.option("--since", type=MOMENT, help="Only what was shown from this moment on (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recommendations(since: datetime | None, as_json: bool) -> None:
    """What was shown, clicked and bought, by scenario, model and variant.

    Clicks and purchases belong to an impression by recommendation_id and item_id. Rates are shares of what was shown,
    with 95 % intervals.
    """
    from datetime import UTC

    import msgspec

    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.serving.outcomes import Share, outcomes

    with opened() as platform:
        found = outcomes(platform.lake, since.replace(tzinfo=UTC) if since else None)
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    if not found:
        click.echo("Nothing was recommended: there is no impression with a recommendation_id.")
        return

    def rate(share: Share) -> str:
        return f"{share.value:.2%} ({share.low:.2%}-{share.high:.2%})"

    rows = [
        (
            one.scenario or "",
            one.model or "",
            one.variant or "",
            f"{one.answers:,}",
            f"{one.shown:,}",
            f"{one.clicked:,}",
            rate(one.click_rate),
            f"{one.bought:,}",
            rate(one.purchase_rate),
            f"{one.revenue:,.2f}",
        )
        for one in found
    ]
    numbers = ("answers", "shown", "clicked", "click rate", "bought", "purchase rate", "revenue")
    print_table(("scenario", "model", "variant", *numbers), rows, right=numbers)
