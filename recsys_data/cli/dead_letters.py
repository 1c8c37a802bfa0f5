"""`recsys-data dead-letters`: what was refused, and why."""

import click

from recsys_data.cli.commands import Commands, opened


@click.group("dead-letters", cls=Commands)
def dead_letters() -> None:
    """Look at what was refused: lines of the stream, and rows of snapshots."""


@dead_letters.command("list", examples=["recsys-data dead-letters list", "recsys-data dead-letters list --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def list_(as_json: bool) -> None:
    """List the reasons, with counts, first and last time, and where an example is."""
    import msgspec

    from recsys_data.cli.terminal import print_table
    from recsys_data.monitoring.dead_letters import summary

    with opened() as platform:
        found = summary(platform.lake)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    if not found:
        click.echo("Nothing was refused.")
        return
    rows = [
        (
            one.reason,
            one.dataset or "-",
            f"{one.count:,}",
            f"{one.first:%Y-%m-%d %H:%M}",
            f"{one.last:%Y-%m-%d %H:%M}",
            one.place,
        )
        for one in found
    ]
    print_table(("reason", "of", "count", "first", "last", "example"), rows, right=("count",))


@dead_letters.command(
    examples=[
        "recsys-data dead-letters show missing_actor",
        "recsys-data dead-letters show wrong_type --limit 100",
    ]
)
@click.argument("reason")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many, newest first.")
def show(reason: str, limit: int) -> None:
    """Show what was refused for a reason, as it came; personal data included."""
    from recsys_data.cli.terminal import print_table
    from recsys_data.errors import UserError
    from recsys_data.monitoring.dead_letters import examples, summary

    with opened() as platform:
        found = examples(platform.lake, reason, limit)
        known = [] if found else sorted({one.reason for one in summary(platform.lake)})
    if not found:
        there = f"There are: {', '.join(known)}." if known else "Nothing was refused at all."
        raise UserError(f"Nothing was refused for {reason}. {there}")
    for one in found:
        facts = [
            ("refused", f"{one.refused_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("detail", one.detail),
            ("as it came", one.raw),
        ]
        print_table((one.place, one.reason), facts)
        click.echo()
