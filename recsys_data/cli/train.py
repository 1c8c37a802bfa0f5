"""`recsys-data train`: trains a model on a training set, and shows how good it is."""

from typing import Any

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.operations.platform import opened


@click.command(cls=Exampled, examples=["recsys-data train item_knn", "recsys-data train ease -p l2=300"])
@click.argument("model")
@click.option("--set", "set_name", default="next_items", show_default=True, help="The training set.")
@click.option("-p", "--parameter", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the model.")
@click.option("--version", type=int, help="Of the training set. Default: the newest, which is built if there is none.")
@click.option("--known", type=click.Choice(["commit", "event_time"]), help="As for training-set build, if it is built.")
@click.option("--promote/--no-promote", default=True, help="Whether it may become the champion.")
def train(
    model: str, set_name: str, given: tuple[str, ...], version: int | None, known: str | None, promote: bool
) -> None:
    """Train MODEL, measure it beside popular, random and the champion, and register it.

    It becomes the champion if it beats the one there is (nDCG@10, 95 % interval above 0), else the challenger.
    """
    from recsys_data.cli.support.terminal import print_table, watched
    from recsys_data.logs import configure_command
    from recsys_data.training.train import train as train_model

    with opened() as platform, watched().status(f"Training {model}") as shown:
        configure_command(platform.settings)
        made = train_model(
            platform.lake,
            platform.settings,
            model,
            set_name,
            parameters=_parameters(given),
            version=version,
            known=known,
            promote=promote,
            on_progress=lambda step: shown.update(f"{model}: {step}"),
        )
    first = next(iter(made.measured.values()))
    names = list(first.metrics)
    rows = [(name, *(_number(one.metrics.get(key)) for key in names)) for name, one in made.measured.items()]
    print_table(("model", *names), rows, right=names)
    click.echo()
    segments = first.segments.to_pylist()
    keys = [name for name in first.segments.column_names if name != "segment"]
    rows = [(one["segment"], f"{one['queries']:,}", *(_number(one[key]) for key in keys[1:])) for one in segments]
    print_table((f"{made.version.kind} by segment", *keys), rows, right=keys)
    built, registered = made.built.manifest, made.version
    click.echo(f"\nTrained on {built.name} {built.version}: {first.evaluation.queries:,} queries in the test rows.")
    if made.better:
        mean, low, high = made.better
        click.echo(f"nDCG@10 less that of the champion: {mean:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}.")
    alias = "champion" if made.promoted else "challenger"
    click.echo(f"Registered as {registered.model} {registered.version}: {alias}.")


@click.command(cls=Exampled, examples=["recsys-data models", "recsys-data models --promote next_items 3"])
@click.option("--promote", nargs=2, type=(str, int), metavar="MODEL VERSION", help="Make a version the champion.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(promote: tuple[str, int] | None, as_json: bool) -> None:
    """List the registered models, their versions and aliases."""
    import msgspec

    from recsys_data.cli.support.terminal import print_json, print_table
    from recsys_data.training.registry import CHAMPION, aliases_of, registered, set_alias

    with opened() as platform:
        if promote:
            set_alias(platform.lake, *promote, CHAMPION)
        found, aliases = registered(platform.lake), aliases_of(platform.lake)
    named = {(model, version): alias for model, of in aliases.items() for alias, version in of.items()}
    if as_json:
        print_json([msgspec.to_builtins(one) | {"alias": named.get((one.model, one.version))} for one in found])
        return
    rows = [
        (
            one.model,
            one.version,
            named.get((one.model, one.version), ""),
            one.kind,
            ", ".join(f"{name}={value}" for name, value in one.parameters.items()),
            one.training_set_version,
            _number(one.metrics.get("nDCG@10")),
            _number(one.metrics.get("R@10")),
            f"{one.registered_at:%Y-%m-%d %H:%M}",
        )
        for one in found
    ]
    head = ("model", "version", "alias", "kind", "parameters", "training set", "nDCG@10", "R@10", "registered (UTC)")
    print_table(head, rows, right=("version", "training set", "nDCG@10", "R@10"))


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    from recsys_data.errors import UserError

    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise UserError(f"--parameter {one!r} has no value; write NAME=VALUE.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--parameter {one!r}: {value!r} is not a value; write it as in YAML.") from None
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
