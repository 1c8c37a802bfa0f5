"""`recsys-data training-set`: builds, lists, shows, rebuilds and exports training sets without Dagster."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.operations.platform import opened
from recsys_data.training.exports import FORMATS

if TYPE_CHECKING:
    from recsys_data.training.sets.manifest import Manifest

KNOWN = click.Choice(["commit", "event_time"])
MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group("training-set", cls=Commands)
def training_set() -> None:
    """Training sets: rows with labels and features, true to the past, with a manifest to rebuild them from.

    Each is declared in YAML, in training_sets/ of the folder of RECSYS_DATA_CONTRACTS; some come with the package.
    """


@training_set.command(examples=["recsys-data training-set build", "recsys-data training-set build impressions"])
@click.argument("names", nargs=-1)
@click.option("--cutoff", type=MOMENT, help="Leave out what happened, or became known, from this moment (UTC) on.")
@click.option(
    "--known",
    type=KNOWN,
    help="In place of what is declared: event_time for history that was imported after it happened.",
)
def build(names: tuple[str, ...], cutoff: datetime | None, known: str | None) -> None:
    """Build the next version of training sets (all of them by default)."""
    from recsys_data.cli.support.terminal import watched
    from recsys_data.logs import configure_command
    from recsys_data.training.sets.build import build as build_set
    from recsys_data.training.sets.declared import usable_sets

    moment = cutoff.replace(tzinfo=UTC) if cutoff else None
    with opened() as platform, watched().status("Building training sets") as shown:
        configure_command(platform.settings)
        for name in names or usable_sets(platform.contracts, *platform.settings.contract_dirs):
            made = build_set(
                platform.lake,
                platform.settings,
                name,
                cutoff=moment,
                known=known,
                on_progress=lambda step, name=name: shown.update(f"{name}: {step}"),
            )
            _print_built(
                made.manifest.name, made.manifest.version, str(made.folder), "built" if made.new else "unchanged"
            )
            _print_files(made.manifest)
            nothing = _without_anything_known(made.manifest, made.folder)
            if nothing:
                click.echo(
                    f"{nothing}: by known: commit an event counts since it was stored. For history that was imported "
                    "later, use --known event_time.",
                    err=True,
                )


@training_set.command("list", examples=["recsys-data training-set list", "recsys-data training-set list --json"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """List the training sets and the newest version of each."""
    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.errors import Permanent
    from recsys_data.settings import Settings
    from recsys_data.training.sets.declared import load_sets
    from recsys_data.training.sets.manifest import read_manifest, versions

    settings = Settings.from_env()
    found = []
    for name, (declared, path) in load_sets(*settings.contract_dirs).items():
        there = versions(settings, name)
        newest = None
        try:
            newest = read_manifest(settings, name)[0] if there else None
        except Permanent as error:
            click.echo(f"{name}: {error}", err=True)
        rows = {split: newest.counts.get(split, 0) for split in ("train", "validation", "test")} if newest else {}
        found.append(
            {
                "name": name,
                "rows_of": declared.rows,
                "purpose": declared.purpose,
                "features": declared.features,
                "file": str(path),
                "versions": there,
                "built_at": newest.built_at if newest else None,
                "rows": rows,
            }
        )
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["rows_of"],
            ", ".join(one["features"]) or "-",
            one["versions"][-1] if one["versions"] else "-",
            one["built_at"] or "-",
            *(f"{one['rows'].get(split, 0):,}" for split in ("train", "validation", "test")),
        )
        for one in found
    ]
    head = ("training set", "rows of", "features", "version", "built at", "train", "validation", "test")
    print_table(head, rows, right=("version", "train", "validation", "test"))


@training_set.command(
    examples=["recsys-data training-set show impressions", "recsys-data training-set show impressions --json"]
)
@click.argument("name")
@click.option("--version", type=int, help="Default: the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def show(name: str, version: int | None, as_json: bool) -> None:
    """Show what a version was built from, what each step left out, and its files."""
    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.settings import Settings
    from recsys_data.training.sets.manifest import read_manifest

    manifest, folder = read_manifest(Settings.from_env(), name, version)
    if as_json:
        print_json(manifest)
        return
    _print_built(name, manifest.version, str(folder), f"built at {manifest.built_at}")
    print_table(("step", "rows"), [(step, f"{rows:,}") for step, rows in manifest.counts.items()], right=("rows",))
    sources = [
        (source, one.version, f"{one.rows:,}", ", ".join(f"{p}:{at}" for p, at in one.positions.items()) or "-")
        for source, one in manifest.sources.items()
    ]
    click.echo()
    print_table(("dataset", "contract", "rows", "log positions"), sources, right=("rows",))
    if manifest.views:
        click.echo()
        views = [(view, one.version, one.sha256[:12]) for view, one in manifest.views.items()]
        print_table(("feature view", "version", "sha256"), views)
    click.echo()
    _print_files(manifest)


@training_set.command(examples=["recsys-data training-set rebuild impressions --version 3"])
@click.argument("name")
@click.option("--version", type=int, help="Default: the newest.")
def rebuild(name: str, version: int | None) -> None:
    """Build the files of a version again from its manifest: the same bytes, or an error and nothing changed."""
    from recsys_data.cli.support.terminal import watched
    from recsys_data.logs import configure_command
    from recsys_data.training.sets.build import rebuild as rebuild_set

    with opened() as platform, watched().status(f"Rebuilding {name}") as shown:
        configure_command(platform.settings)
        made = rebuild_set(
            platform.lake, platform.settings, name, version, on_progress=lambda step: shown.update(f"{name}: {step}")
        )
    _print_built(name, made.manifest.version, str(made.folder), "rebuilt, byte for byte")
    _print_files(made.manifest)


@training_set.command(
    examples=[
        "recsys-data training-set export impressions --format lightgbm --out ranker",
        "recsys-data training-set export next_items --format implicit --version 3 --out matrices",
    ]
)
@click.argument("name")
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), required=True, help="What to export it to.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--version", type=int, help="Default: the newest.")
@click.option(
    "--currency", metavar="CODE", help="Google Retail: the labels of purchases are revenue in this currency (EUR, ...)."
)
def export(name: str, format_: str, out: Path, version: int | None, currency: str | None) -> None:
    """Export a version to the files of a library or a service.

    export.json, beside them, says which rows and columns have no place in the format.
    """
    import json

    from recsys_data.cli.support.terminal import print_table, watched
    from recsys_data.settings import Settings
    from recsys_data.training.exports import SUMMARY
    from recsys_data.training.exports import export as export_set
    from recsys_data.training.sets.manifest import read_manifest

    settings = Settings.from_env()
    manifest, folder = read_manifest(settings, name, version)
    with watched().status(f"Exporting {name} {manifest.version}"):
        memory = settings.history_memory_mb * 1_000_000
        files = export_set(folder, manifest, format_, out, currency=currency, memory_bytes=memory)
    rows = [(str(file.relative_to(out.absolute())), f"{file.stat().st_size:,}") for file in files]
    click.echo(f"{name} {manifest.version}: exported to {out}")
    print_table(("file", "bytes"), rows, right=("bytes",))
    left_out = json.loads((out / SUMMARY).read_text("utf-8"))
    for reason, count in left_out["rows_left_out"].items():
        click.echo(f"Left out {count:,} rows: {reason}", err=True)
    if columns := left_out["columns_left_out"]:
        click.echo(f"Left out {len(columns)} columns; {SUMMARY} says why.", err=True)


def _print_built(name: str, version: int, folder: str, how: str) -> None:
    click.echo(f"{name} {version}: {how}, in {folder}")


def _print_files(manifest: "Manifest") -> None:
    from recsys_data.cli.support.terminal import print_table

    rows = [
        (name, f"{one.rows:,}", f"{one.positives:,}", f"{one.bytes:,}", one.sha256[:16])
        for name, one in manifest.files.items()
    ]
    print_table(("file", "rows", "positive", "bytes", "sha256"), rows, right=("rows", "positive", "bytes"))


def _without_anything_known(manifest: "Manifest", folder: Path) -> str:
    """What a set lacks because its events became known later than its rows, or its cutoff; empty if nothing."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if manifest.known_until and not manifest.files:
        return "No row was known by the cutoff"
    flags = [f"{view}__known" for view in manifest.views]
    if not flags or "train.parquet" not in manifest.files:
        return ""
    if any(pc.any(known).as_py() for known in pq.read_table(folder / "train.parquet", columns=flags).columns):
        return ""
    return "No feature knows anything of any row"
