"""`recsys-data online`: keeps the online store equal to the lake, compares both, and shows what it says."""

import json
import time
from contextlib import closing

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.operations.platform import opened

SECONDS = 1.0


@click.group(cls=Commands)
def online() -> None:
    """The online store: current features of users and items, for answers within milliseconds.

    It is a cache of the lake, in the folder `online` or where RECSYS_DATA_ONLINE_STORE says.
    """


@online.command(examples=["recsys-data online update", "recsys-data online update --follow"])
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=SECONDS, show_default=True, help="Pause, with --follow."
)
def update(follow: bool, seconds: float) -> None:
    """Apply what is new in the lake; make everything anew if rows were deleted or feature views changed."""
    from recsys_data.operations.local.stopping import Stop
    from recsys_data.serving.online.updater import Updater
    from recsys_data.serving.online_store.open import open_online_store
    from recsys_data.storage.iceberg.pyiceberg_patches import remembered_manifests

    with (
        opened() as platform,
        closing(open_online_store(platform.settings)) as store,
        Stop() as stop,
        remembered_manifests(),
    ):
        updater, said = Updater(platform.lake, store), ""
        while not stop:
            begun = time.perf_counter()
            try:
                done = updater.update()
            except (Transient, Permanent) as error:
                # `up` ends with any of its processes, and events must be collected without a cache too.
                if not follow:
                    raise
                if said != (said := str(error)):
                    click.echo(f"Not updated: {error}", err=True)
            else:
                said = ""
                if done.keys or not follow:
                    why = f" Made anew: {done.rebuilt}." if done.rebuilt else ""
                    seconds_ = time.perf_counter() - begun
                    click.echo(f"{done.rows:,} rows applied, {done.keys:,} keys written in {seconds_:.1f} s.{why}")
            if not follow:
                return
            stop.wait(seconds)


@online.command(examples=["recsys-data online rebuild"])
def rebuild() -> None:
    """Make the whole store anew from the lake, beside its readers."""
    from recsys_data.serving.online.updater import Updater
    from recsys_data.serving.online_store.open import open_online_store

    with opened() as platform, closing(open_online_store(platform.settings)) as store:
        begun = time.perf_counter()
        done = Updater(platform.lake, store).rebuild()
        click.echo(f"{done.rows:,} rows applied, {done.keys:,} keys written in {time.perf_counter() - begun:.1f} s.")


@online.command(examples=["recsys-data online verify"])
def verify() -> None:
    """Compare the store with a rebuild, key by key; nothing is changed.

    Stop whatever updates it first: the rebuild must meet its position.
    """
    import msgspec

    from recsys_data.serving.online.verification import verify
    from recsys_data.serving.online_store.open import open_online_store

    with opened() as platform, closing(open_online_store(platform.settings)) as store:
        found = verify(platform.lake, store)
    if found.different:
        named = "; ".join(str(msgspec.msgpack.decode(key)) for key in found.different[:5])
        raise Permanent(
            f"{len(found.different):,} of {found.keys:,} keys differ from a rebuild, e.g. {named}. "
            "Run `recsys-data online rebuild`."
        )
    click.echo(f"All {found.keys:,} keys are equal to those of a rebuild.")


@online.command(examples=["recsys-data online parity --hours 1"])
@click.option("--hours", type=click.FloatRange(min=0), default=24.0, show_default=True, help="How far back to look.")
@click.option("--positions", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The newest so many.")
def parity(hours: float, positions: int) -> None:
    """Compute served feature values again from the lake, at the positions they were read at, and compare."""
    from datetime import UTC, datetime, timedelta

    from recsys_data.cli.support.terminal import print_table
    from recsys_data.features.parity import parity

    with opened() as platform:
        found = parity(platform.lake, datetime.now(UTC) - timedelta(hours=hours), positions)
    if found.differences:
        head = ("feature", "entity", "moment", "served", "computed")
        print_table(head, [tuple(map(str, one)) for one in found.differences])
        raise Permanent(
            f"{found.different:,} of {found.values:,} values differ. Run `recsys-data online verify`; if it finds "
            "keys that differ, run `recsys-data online rebuild`."
        )
    click.echo(
        f"{found.values:,} values served at {found.readings:,} positions are those of the lake"
        + (f", {found.within:,} of them within 1e-9." if found.within else ".")
    )


@online.command(examples=["recsys-data online show user_activity u1", "recsys-data online show user_item u1 p00001"])
@click.argument("view")
@click.argument("keys", nargs=-1, required=True)
def show(view: str, keys: tuple[str, ...]) -> None:
    """Show the features of one entity as an answer would use them now."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.days import from_microseconds
    from recsys_data.serving.online.reader import FeatureReader
    from recsys_data.serving.online.updater import online_views
    from recsys_data.serving.online_store.open import open_online_store

    with opened() as platform, closing(open_online_store(platform.settings)) as store:
        views, left_out = online_views(platform.lake)
        if view in views and views[view].view.request:
            raise UserError(f"{view} needs columns of the request; ask /v1/features.")
        read = FeatureReader(store, views, left_out).read({view: [keys]})
    (row,) = read.tables[view].to_pylist()
    print_table(("feature", "value"), [(name, _text(value)) for name, value in row.items()])
    click.echo(f"As of {from_microseconds(read.moments[view]):%Y-%m-%d %H:%M:%S} UTC.")


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
