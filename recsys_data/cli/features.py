"""`recsys-data features`: lists, computes, joins and examines feature views without Dagster."""

from datetime import UTC, datetime
from pathlib import Path

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.operations.platform import opened

DAY = click.DateTime(["%Y-%m-%d"])
KNOWN = click.Choice(["commit", "event_time"])


@click.group(cls=Commands)
def features() -> None:
    """Feature views: what is computed of users, items and sessions, true to the past.

    Each is a contract below contracts/features/, or in the folder of RECSYS_DATA_CONTRACTS.
    """


@features.command("list", examples=["recsys-data features list"])
def list_() -> None:
    """List the feature views, and what of them is stored."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.days import day_key
    from recsys_data.features.lake import views_of
    from recsys_data.features.materialize import stale_days
    from recsys_data.storage.iceberg.manifest_stats import days

    rows = []
    with opened() as platform:
        for name, contract in views_of(platform.lake).items():
            assert contract.view
            stored = days(platform.lake.table(name))
            span = (day_key(min(stored)), day_key(max(stored))) if stored else ("-", "-")
            stale = len(stale_days(platform.lake, name))
            of, entity = contract.view.source, ", ".join(contract.view.entity)
            total = sum(one.rows for one in stored.values())
            rows.append((name, entity, of, len(contract.view.features), f"{total:,}", *span, stale))
    head = ("view", "entity", "computed from", "features", "rows", "first", "last", "days to compute")
    print_table(head, rows, right=("features", "rows", "days to compute"))


@features.command(examples=["recsys-data features show item_engagement"])
@click.argument("name")
def show(name: str) -> None:
    """Show the features of a view, and what their values look like."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.features.lake import FeatureSources
    from recsys_data.features.profile import profile

    with opened() as platform:
        view = FeatureSources(platform.lake).view(name)
        found = {one.name: one for one in profile(platform.lake, name)}
        contract = platform.lake.contracts[name]
    rows = []
    for feature in view.features:
        one, column = found[feature.name], contract.column(feature.name)
        window = f"{feature.window.kind} {_span(feature.window.size)}" if feature.function else ""
        how = (
            feature.function or feature.expression or feature.embedding or f"{view.source_of(feature)}.{feature.column}"
        )
        mean, least, greatest = ("" if n is None else f"{n:.4g}" for n in (one.mean, one.least, one.greatest))
        use = ", ".join(column.permitted_use)
        rows.append(
            (
                feature.name,
                how,
                window.strip(),
                feature.filter or "",
                f"{one.missing:.1%}",
                mean,
                least,
                one.bars,
                greatest,
                use,
            )
        )
    head = (
        "feature",
        "computed by",
        "window",
        "filter",
        "missing",
        "mean",
        "least",
        "distribution",
        "greatest",
        "only for",
    )
    print_table(head, rows, right=("missing", "mean", "least", "greatest"))


@features.command(
    examples=["recsys-data features refresh", "recsys-data features refresh item_engagement --day 2026-11-25"]
)
@click.argument("names", nargs=-1)
@click.option("--day", type=DAY, help="The day. Default: every day that differs from what its sources say.")
def refresh(names: tuple[str, ...], day: datetime | None) -> None:
    """Compute tiles and values of feature views (all of them by default)."""
    from recsys_data.cli.support.terminal import print_table, watched
    from recsys_data.days import day_number
    from recsys_data.features.embeddings import missing_extra
    from recsys_data.features.lake import FeatureSources, views_of
    from recsys_data.features.materialize import refresh_view
    from recsys_data.logs import configure_command

    rows = []
    with opened() as platform, watched().status("Computing feature views") as shown:
        configure_command(platform.settings)
        for name in names:
            FeatureSources(platform.lake).view(name)
        for name in names or views_of(platform.lake):
            problem = missing_extra(FeatureSources(platform.lake).view(name))
            if problem and not names:
                click.echo(f"Left out: {problem}", err=True)
                continue
            days = values = total = 0
            seconds = 0.0
            for update in refresh_view(
                platform.lake, platform.settings, name, [day_number(day.date())] if day else None
            ):
                days += len(update.days)
                total += sum(update.rows.values())
                values += update.values
                seconds += update.seconds
                shown.update(f"{name}: {days} days, {values:,} values")
            rows.append((name, days, f"{total:,}", f"{values:,}", f"{seconds:.1f}"))
    print_table(("view", "days", "rows", "values", "seconds"), rows, right=("days", "rows", "values", "seconds"))


@features.command(
    examples=[
        "recsys-data features join --spine clicks.csv --views item_engagement,user_item --out train.parquet",
        "recsys-data features join --spine old.parquet --views item_engagement --known event_time --out old.csv",
    ]
)
@click.option("--spine", type=click.Path(path_type=Path), required=True, help="Keys, a timestamp, and anything else.")
@click.option("--views", required=True, metavar="NAME,...", help="The feature views.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The file to write: the rows, with features."
)
@click.option(
    "--timestamp", default="timestamp", show_default=True, help="Column of the moment; UTC without an offset."
)
@click.option(
    "--known",
    type=KNOWN,
    default="commit",
    show_default=True,
    help="From when on an event counts: since it was stored, or since it happened (for imported history).",
)
@click.option(
    "--purpose", default="personalisation", show_default=True, help="What the features are for; it must be permitted."
)
def join(spine: Path, views: str, out: Path, timestamp: str, known: str, purpose: str) -> None:
    """Join feature views to a spine, point in time: each row gets what was known at its moment, and no row is lost."""
    from recsys_data.features.files import knows_nothing, read_spine, write_joined
    from recsys_data.features.lake import FeatureSources, join_features, open_features
    from recsys_data.logs import configure_command

    names = [name.strip() for name in views.split(",") if name.strip()]
    with opened() as platform, open_features(platform.settings.history_memory_mb * 1_000_000) as connection:
        configure_command(platform.settings)
        keys = {key for name in names for key in FeatureSources(platform.lake).view(name).entity}
        rows = read_spine(connection, spine, keys)
        joined = join_features(
            platform.lake, connection, rows, names, purpose=purpose, known=known, timestamp=timestamp
        )
        columns = len(joined.columns)
        written = write_joined(connection, joined, out)
        unknown = known == "commit" and written and knows_nothing(connection, out, names)
    click.echo(f"{out}: {written:,} rows, {columns} columns.")
    if unknown:
        click.echo(
            "Nothing was known of any row: by --known commit an event counts since it was stored. For history that was "
            "imported later, use --known event_time.",
            err=True,
        )


@features.command(examples=["recsys-data features leakage item_engagement"])
@click.argument("name")
@click.option("--known", type=KNOWN, default="commit", show_default=True, help="As for join.")
def leakage(name: str, known: str) -> None:
    """Compute a sample of a view again without the future, and report features that differ."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.errors import UserError
    from recsys_data.features.leakage import leaks

    with opened() as platform:
        found = leaks(platform.lake, name, known=known)
    if not found:
        click.echo(f"{name}: no feature of the sample depends on what happened or became known later.")
        return
    rows = [
        (one.feature, *map(str, one.entity[:1]), one.moment.astimezone(UTC), one.value, one.value_then) for one in found
    ]
    print_table(("feature", "entity", "moment", "value", "without the future"), rows)
    raise UserError(f"{len(found)} features of {name} know the future; correct what they are computed from.")


def _span(microseconds: int) -> str:
    """A duration as it is declared.

    >>> _span(24 * 3600 * 1_000_000), _span(0)
    ('1d', '')
    """
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if microseconds and microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    return ""
