"""Feature views among the other datasets: refused unless they make sense, with what they inherit and bring along.

A feature takes over from the columns that it reads whether they are personal, and what they may be used for. Beside a
view of a stream stand its tiles, as `NAME_tiles`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from recsys_data.contracts.features.check import Resolved, check, one_session, resolve
from recsys_data.contracts.features.functions import State, states_of
from recsys_data.contracts.features.sources import dataset_of, sources_of
from recsys_data.contracts.features.view import FeatureView, Source, keys, over_histories
from recsys_data.contracts.model import Column, Contract, Kind, tiles_name
from recsys_data.errors import ContractError

logger = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[1]
TILE_COLUMNS = (
    Column("tile_ts", "timestamp", "Start of the hop of event time.", required=True, partitioned=True),
    Column("known_ts", "timestamp", "Start of the hop in which the events became known.", required=True),
    Column("first_ts", "timestamp", "When the first of the events happened."),
    Column("known_from", "timestamp", "From when on one of the events had happened and was known."),
)


def with_feature_views(contracts: Mapping[str, Contract]) -> dict[str, Contract]:
    """The contracts with feature views that are checked and complete, and with their tiles.

    A view of the package that does not fit a dataset which replaced that of the package is left out: who has other
    columns declares another view.

    Raises:
        ContractError: naming the file, the view and the feature, what was found and what to do.
    """
    found = dict(contracts)
    sources = sources_of(contracts)
    views = {name: over_histories(one.view, sources) for name, one in contracts.items() if one.view}
    with one_session() as connect:
        for name, view in [*views.items()]:
            problems = check(view, sources, connect)
            if problems and _of_replaced(contracts, name, view):
                logger.info("The feature view %s is left out. %s", name, " ".join(problems))
                del views[name], found[name]
            elif problems:
                raise ContractError(f"{contracts[name].path}: " + "\n".join(problems))
    for name, view in views.items():
        contract = replace(contracts[name], view=view)
        resolved = resolve(view, sources)
        columns = tuple(_inherits(contract, column, resolved, contracts) for column in contract.columns)
        found[name] = replace(contract, columns=columns)
        tiles = tiles_of(found[name], sources, resolved)
        if tiles and tiles.name in contracts:
            raise ContractError(
                f"{contracts[tiles.name].path}: {tiles.name} is made from the feature view {name} and needs no "
                "contract of its own. Remove the file, or rename its dataset."
            )
        found |= {tiles.name: tiles} if tiles else {}
    return found


def _of_replaced(contracts: Mapping[str, Contract], name: str, view: FeatureView) -> bool:
    """Whether the view is of the package, and one of its sources is not."""
    home = contracts[name].path.parent.parent
    used = {dataset_of(view.source_of(one)) for one in view.features if one.expression is None}
    return home == PACKAGE and any(contracts[one].path.parent != home for one in used if one in contracts)


def stream_of(view: FeatureView) -> str | None:
    """The source whose events the view aggregates; None if it takes columns of histories only."""
    return next((view.source_of(one) for one in view.features if one.is_aggregate), None)


def states_needed(view: FeatureView, source: Source, resolved: Resolved) -> list[State]:
    """The states of all aggregates of a view, each once."""
    found = (
        states_of(one, dict(source.columns), resolved.arguments[one.name], len(source.order)).values()
        for one in view.features
        if one.is_aggregate
    )
    return list(dict.fromkeys(state for states in found for state in states))


def tiles_of(contract: Contract, sources: Mapping[str, Source], resolved: Resolved) -> Contract | None:
    """`NAME_tiles` of a view, if it aggregates a stream."""
    view = contract.view
    if view is None or (name := stream_of(view)) is None:
        return None
    source = sources[name]
    whose = keys(view, source)
    states = states_needed(view, source, resolved)
    known = {column.name: column for column in contract.columns}
    return replace(
        contract,
        name=tiles_name(contract.name),
        purpose=f"Partial aggregates of which the features of {contract.name} are made up for any moment.",
        usage="Read by joins and by serving; their columns are not values but what values are merged from.",
        grain="One row per entity, hop of event time and hop in which the events became known.",
        tags=(*contract.tags, "tiles"),
        kind=Kind.FEATURE_TILES,
        columns=(
            *(replace(known.get(key, Column(key, "string")), key=True, required=False) for key in whose),
            *TILE_COLUMNS,
            *(Column(state.name, state.type, f"State of {state.argument}.") for state in states),
        ),
        rules=(),
        checks={},
        base=contract.name,
    )


def _inherits(contract: Contract, column: Column, resolved: Resolved, contracts: Mapping[str, Contract]) -> Column:
    """The column with what it takes over from the columns that it reads.

    Raises:
        ContractError: there is no use that is permitted for all of them.
    """
    view = contract.view
    read = resolved.reads.get(column.name, set())
    if view and column.key and not column.partitioned:
        read = {(view.source, column.name)}
    columns = [one for source, name in sorted(read) for one in _columns(contracts, source) if one.name == name]
    permitted = [set(one.permitted_use) for one in [column, *columns] if one.permitted_use]
    common = set.intersection(*permitted) if permitted else set()
    if permitted and not common:
        said = "; ".join(f"{one.name}: {', '.join(one.permitted_use)}" for one in columns if one.permitted_use)
        raise ContractError(
            f"{contract.path}: {contract.name}.{column.name}: no use is permitted for all columns that it reads "
            f"({said}). Leave one of them out."
        )
    classified = next((one.classification for one in [column, *columns] if one.classification), None)
    reads = tuple(sorted({(dataset_of(source), name) for source, name in read}))
    return replace(column, classification=classified, permitted_use=tuple(sorted(common)), reads=reads)


def _columns(contracts: Mapping[str, Contract], source: str) -> Iterable[Column]:
    return contracts[dataset_of(source)].columns
