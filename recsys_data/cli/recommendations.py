"""`recsys-data recommendations`: what became of what was recommended."""

from datetime import datetime

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.command(
    cls=Exampled,
    examples=[
        "recsys-data recommendations",
        "recsys-data recommendations --since 2026-11-01",
        "recsys-data recommendations --uplift --baseline popular",
    ],
)
@click.option("--since", type=MOMENT, help="Only what was shown from this moment on (UTC).")
@click.option("--uplift", is_flag=True, help="Compare the variants of each scenario.")
@click.option("--baseline", help="The variant to compare with; default: control, or else the one that was shown most.")
@click.option("--off-policy", "off_policy", is_flag=True, help="Estimate what the challengers would be worth.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recommendations(
    since: datetime | None, uplift: bool, baseline: str | None, off_policy: bool, as_json: bool
) -> None:
    """What was shown, clicked and bought, by scenario, model and variant.

    Clicks and purchases belong to an impression by recommendation_id and item_id. Rates are shares of what was shown,
    with 95 % intervals over visitors. --off-policy shows instead, by scenario, the clicks per impression that the
    challenger would get if it ordered what was chosen.
    """
    from datetime import UTC

    import msgspec

    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.serving.outcomes import Share, outcomes

    if baseline and not uplift:
        raise click.UsageError("--baseline needs --uplift.")
    if uplift and off_policy:
        raise click.UsageError("--uplift and --off-policy are different tables: ask for one.")
    if off_policy:
        _estimate(since.replace(tzinfo=UTC) if since else None, as_json)
        return
    if uplift:
        _compare(since, baseline, as_json)
        return
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


def _compare(since: datetime | None, baseline: str | None, as_json: bool) -> None:
    from datetime import UTC

    import msgspec

    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.serving.outcomes import Share
    from recsys_data.serving.uplift import uplifts

    with opened() as platform:
        found = uplifts(platform.lake, since.replace(tzinfo=UTC) if since else None, baseline)
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    if not found:
        click.echo("There is nothing to compare: no scenario has shown two variants.")
        return

    def points(share: Share) -> str:
        return f"{100 * share.value:.2f} points ({100 * share.low:.2f} to {100 * share.high:.2f})"

    def percent(share: Share | None) -> str:
        return f"{share.value:+.1%} ({share.low:+.1%} to {share.high:+.1%})" if share else ""

    rows = [
        (
            one.scenario or "",
            one.variant,
            one.baseline,
            one.measure,
            f"{one.rate.value:.2%}",
            f"{one.baseline_rate.value:.2%}",
            points(one.difference),
            percent(one.relative),
        )
        for one in found
    ]
    numbers = ("rate", "baseline rate", "difference", "uplift")
    print_table(("scenario", "variant", "baseline", "measure", *numbers), rows, right=numbers)


def _estimate(since: datetime | None, as_json: bool) -> None:
    import msgspec

    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.serving.estimates import estimates
    from recsys_data.training.off_policy import Estimate

    with opened() as platform:
        found = estimates(platform.lake, platform.settings, since)
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    if not found:
        click.echo("No scenario has a model with a challenger.")
        return

    def shown(one: Estimate | None) -> str:
        return "" if one is None else f"{one.value:.2%} ({one.low:.2%} to {one.high:.2%})"

    rows = [
        (
            one.scenario,
            one.challenger,
            f"{one.answers:,}",
            f"{one.visitors:,}",
            f"{one.effective_sample_size:,.0f}",
            shown(one.on_policy) or one.missing,
            shown(one.snips),
            shown(one.dr),
        )
        for one in found
    ]
    numbers = ("answers", "visitors", "effective impressions")
    print_table(("scenario", "challenger", *numbers, "clicks now", "SNIPS", "DR"), rows, right=numbers)
