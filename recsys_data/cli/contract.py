"""`recsys-data contract`: shows and checks data contracts."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys_data.cli.support.commands import Commands
from recsys_data.errors import ContractError, UserError
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from recsys_data.contracts import Contract


@click.group(cls=Commands)
def contract() -> None:
    """Show and check data contracts.

    They follow the Open Data Contract Standard. RECSYS_DATA_CONTRACTS names a folder of further contracts; a contract
    there replaces the built-in one of the same name.
    """


@contract.command(
    "list",
    examples=[
        "recsys-data contract list",
    ],
)
def list_() -> None:
    """List the datasets."""
    from recsys_data.cli.support.terminal import print_table

    head = ("dataset", "version", "kind", "columns", "rules", "stale after", "one row is")
    rows = []
    for c in loaded().values():
        minutes = f"{c.latency.total_seconds() / 60:g} min"
        rows.append((c.name, c.version, c.kind, len(c.columns), len(c.rules), minutes, c.grain))
    print_table(head, rows, right=("columns", "rules", "stale after"))


@contract.command(examples=["recsys-data contract show interactions"])
@click.argument("name")
def show(name: str) -> None:
    """Show the columns and rules of a dataset."""
    from recsys_data.cli.support.terminal import print_table
    from recsys_data.contracts.types import duckdb_type

    found = named(name)
    for line in (f"{found.name} {found.version} ({found.path})", found.purpose, found.grain, found.usage):
        click.echo(line)
    columns = [
        (c.name, duckdb_type(c.type), "yes" if c.required or c.key else "", c.classification or "", c.description)
        for c in found.columns
    ]
    print_table(("column", "type", "required", "classification", "what it is"), columns)
    if found.rules:
        rules = [(rule.name, rule.description, rule.predicate) for rule in found.rules]
        print_table(("reason of a dead letter", "rule", "holds where"), rules)


@contract.command(examples=["recsys-data contract check contracts/orders.odcs.yaml"])
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def check(paths: tuple[Path, ...]) -> None:
    """Check contracts, training sets and scenarios: files and folders of them, or those in use.

    Each contract is checked by itself, then together with those in use, then training sets and scenarios against them.
    """
    from recsys_data.contracts import load_contract
    from recsys_data.contracts.load import CONTRACTS_DIR
    from recsys_data.training.sets.declared import usable_sets

    given = paths or (CONTRACTS_DIR, *Settings.from_env().contract_dirs)
    sets = [path for one in given for path in set_files(one)]
    scenarios = [path for one in given for path in scenario_files(one)]
    files = list(contract_files(path for path in given if path not in (*sets, *scenarios)))
    sound: dict[str, Contract] = {}
    problems = 0
    for path in files:
        try:
            found = load_contract(path)
        except ContractError as error:
            problems += 1
            click.echo(f"Error: {error}", err=True)
        else:
            sound[found.name] = found
            click.echo(f"{path}: {found.name} {found.version}, {len(found.columns)} columns, {len(found.rules)} rules")
    if problems:
        raise UserError(f"{problems} of {len(files)} contracts cannot be used.")
    together = {**loaded(), **sound}
    check_together(together)
    of_package = [] if paths else [path for _, path in usable_sets(together).values()]
    check_sets([*of_package, *sets], together)
    check_scenarios(scenarios, together)


@contract.command(examples=["recsys-data contract jsonschema interactions > interactions.schema.json"])
@click.argument("name")
def jsonschema(name: str) -> None:
    """Print the JSON Schema of a dataset's events, for producers."""
    from recsys_data.cli.support.terminal import print_json
    from recsys_data.contracts.jsonschema import json_schema

    print_json(json_schema(named(name)))


def loaded() -> "dict[str, Contract]":
    """The contracts in use, by name."""
    from recsys_data.contracts import load_contracts

    return load_contracts(*Settings.from_env().contract_dirs)


def named(name: str) -> "Contract":
    """The contract in use of that name.

    Raises:
        UserError: there is none.
    """
    contracts = loaded()
    if name not in contracts:
        raise UserError(f"Unknown dataset {name!r}. Choose one of {', '.join(contracts)}.")
    return contracts[name]


def check_together(contracts: "dict[str, Contract]") -> None:
    """Refuse contracts that make sense one by one but not side by side.

    Raises:
        ContractError: they cannot be fed by one stream of events, or a feature view does not fit its sources.
        Permanent: none takes whole events.
    """
    from recsys_data.contracts.features.datasets import with_feature_views
    from recsys_data.contracts.model import Kind
    from recsys_data.contracts.validate import check_references, check_stream
    from recsys_data.ingestion.streaming.positions import main_dataset

    check_stream(contracts)
    check_references(contracts)
    main_dataset(contracts)
    declared = {name: one for name, one in contracts.items() if one.kind is not Kind.FEATURE_TILES}
    for name in declared.keys() - with_feature_views(declared).keys():
        click.echo(f"{name} is left out: it is a feature view of the package, and one of its sources was replaced.")


def check_sets(files: list[Path], contracts: "dict[str, Contract]") -> None:
    """Print the training sets, or what is wrong with them.

    Raises:
        UserError: one of them cannot be used.
    """
    from recsys_data.training.sets.declared import check_set, read_set

    problems = 0
    declared: dict[str, Path] = {}
    for path in files:
        try:
            found = read_set(path)
            check_set(path, found, contracts)
            other = declared.setdefault(found.name, path)
            if other != path and other.parent == path.parent:
                raise ContractError(f"{path}: name: {found.name} is declared in {other.name} too.")
        except ContractError as error:
            problems += 1
            click.echo(f"Error: {error}", err=True)
        else:
            views = f"{len(found.features)} feature views"
            click.echo(f"{path}: training set {found.name} of {found.rows}, {len(found.labels)} labels, {views}")
    if problems:
        raise UserError(f"{problems} of {len(files)} training sets cannot be used.")


def check_scenarios(files: list[Path], contracts: "dict[str, Contract]") -> None:
    """Print the scenarios, or what is wrong with them.

    Raises:
        UserError: one of them cannot be used.
    """
    from recsys_data.serving.scenarios.declared import read_scenario

    problems = 0
    for path in files:
        try:
            found = read_scenario(path, contracts)
        except UserError as error:
            problems += 1
            click.echo(f"Error: {error}", err=True)
        else:
            click.echo(f"{path}: scenario {found.name}, candidates {', '.join(found.candidates)}")
    if problems:
        raise UserError(f"{problems} of {len(files)} scenarios cannot be used.")


def scenario_files(path: Path) -> list[Path]:
    """The scenarios of a folder of contracts, or the file itself if it is one."""
    from recsys_data.serving.scenarios.declared import FOLDER

    if path.is_dir():
        return sorted((path / FOLDER).glob("*.yaml"))
    return [path] if path.absolute().parent.name == FOLDER else []


def set_files(path: Path) -> list[Path]:
    """The training sets of a folder of contracts, or the file itself if it is one."""
    from recsys_data.training.sets.declared import FOLDER

    if path.is_dir():
        return sorted((path / FOLDER).glob("*.yaml"))
    return [path] if path.absolute().parent.name == FOLDER else []


def contract_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The contract files that are named or lie in named folders.

    Raises:
        UserError: a folder holds none.
    """
    from recsys_data.contracts.load import SUFFIX, files_in

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = files_in(path)
        if not (found or set_files(path) or scenario_files(path)):
            raise UserError(f"{path} holds no contracts. Expected files whose names end with {SUFFIX}.")
        yield from found
