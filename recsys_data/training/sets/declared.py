"""Training sets as they are declared: one YAML file each, checked when it is read.

Data flow: `sets/*.yaml` of this package, then `training_sets/*.yaml` of the folder that RECSYS_DATA_CONTRACTS names ->
`TrainingSet`. A file replaces the one of its name. Run alone: `recsys-data training-set list`.
"""

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from recsys_data.contracts.features.expressions import references, types_of
from recsys_data.contracts.features.view import DAY, parse_duration
from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.sql_guard import ForbiddenSql
from recsys_data.contracts.types import duckdb_type
from recsys_data.contracts.yaml_text import parse_yaml, read_text
from recsys_data.errors import ContractError, UserError
from recsys_data.sql import open_session
from recsys_data.training.baselines import MODELS, RANKERS

SETS = Path(__file__).parent
# In a user's folder of contracts.
FOLDER = "training_sets"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=100)]

# Names of columns of rows, which those of `context` cannot have.
OWN_COLUMNS = frozenset({
    "event_id", "visitor_id", "user_id", "item_id", "timestamp", "session_id", "list_id", "recommendation_id",
    "position", "model", "variant", "score", "propensity", "query_id", "previous_item_id", "label",
    "label_type", "negative",
})  # fmt: skip
AGENT = "user_agent"
# Assets in Dagster that are neither datasets nor training sets.
OTHER_ASSETS = frozenset({"recommendations", "event_log", "lake_upkeep", "dagster_upkeep", "retention"})
NUMBERS = frozenset({
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
    "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE",
})  # fmt: skip
LONGEST = 36_500 * DAY
# What a rule for bots can use of a visitor's day.
BOT_COLUMNS = {
    "events": "BIGINT",
    "impressions": "BIGINT",
    "clicks": "BIGINT",
    "purchases": "BIGINT",
    "items": "BIGINT",
    "sessions": "BIGINT",
    "seconds": "DOUBLE",
    "user_agent": "VARCHAR",
}


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event type that is an outcome.

    Attributes:
        type: of the event.
        weight: what it is worth: a number, or SQL over the columns of the event; NULL, 0 and what is not finite are not
            outcomes.
        refunds: `negate`: an outcome that was given back within `maturity` does not count.
    """

    type: str
    weight: float | str = 1.0
    refunds: Literal["negate", "ignore"] = "ignore"


class Negatives(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows with the label 0.

    Attributes:
        impressions: share of the impressions without an outcome that is kept, by a hash of their ids.
        lists: `followed`: only of lists that have an outcome; `all`.
        sampled: how many further items are drawn for each positive row, among those that the visitor had no outcome on.
        by: whether drawn items are any (`uniform`) or as frequent as in outcomes (`popularity`).
    """

    impressions: Share = 1.0
    lists: Literal["followed", "all"] = "all"
    sampled: Count = 0
    by: Literal["uniform", "popularity"] = "uniform"


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rows are divided.

    Attributes:
        by: `time`: the newest rows are for tests; `leave_last_out`: the last positive row of each visitor;
            `visitor`: all rows of some visitors; `none`: all rows are for training.
        validation, test: a share of the rows, or (`time` only) a duration before the end.
        gap: rows of this long before a border in time are left out (`time` only).
    """

    by: Literal["time", "leave_last_out", "visitor", "none"] = "time"
    validation: Share | str = 0.1
    test: Share | str = 0.2
    gap: str = "0s"


class TrainingSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A declared training set.

    Attributes:
        name: by which it is built.
        rows: `impressions`: a row for each item that was shown, and for each outcome without one; `outcomes`: a row for
            each outcome.
        labels: which events are outcomes.
        description: for people.
        purpose: what it is for; every column that is read must be permitted for it.
        known: `commit` or `event_time`, as in the point-in-time join.
        window: how long after an impression outcomes count for it.
        maturity: after which the label of a row is final; younger rows are left out.
        label: of several outcomes of an impression, the `max` or the `sum` of their weights.
        bots: SQL condition over a visitor's day (`BOT_COLUMNS`); rows of the days for which it is true are left out.
        context: columns of `contexts` that rows get, and that feature views can use as `request.NAME`.
        negatives: rows with the label 0.
        features: names of feature views.
        split: how rows are divided.
        seed: of whatever is drawn by chance.
        models: what is trained on it: name of a model -> its parameters.
    """

    name: str
    rows: Literal["impressions", "outcomes"]
    labels: Annotated[list[Label], msgspec.Meta(min_length=1)]
    description: str = ""
    purpose: str = "personalisation"
    known: Literal["commit", "event_time"] = "commit"
    window: str = "1d"
    maturity: str = "1d"
    label: Literal["max", "sum"] = "max"
    bots: str | None = None
    context: list[str] = []
    negatives: Negatives = Negatives()
    features: list[str] = []
    split: Split = Split()
    seed: Annotated[int, msgspec.Meta(ge=0)] = 42
    models: dict[str, dict[str, Any]] = {}

    def duration(self, name: str) -> int:
        """One of the durations in microseconds."""
        return parse_duration(self.split.gap if name == "gap" else getattr(self, name))


def load_sets(*folders: Path) -> dict[str, tuple[TrainingSet, Path]]:
    """The training sets of the package and of folders of contracts, with their files, by name.

    Raises:
        ContractError: a file is not a training set; names file and field, and says what was expected.
    """
    found: dict[str, tuple[TrainingSet, Path]] = {}
    for folder in (SETS, *(one / FOLDER for one in folders)):
        for path in sorted(folder.glob("*.yml")):
            raise ContractError(f"{path}: only files that end with .yaml are read. Rename it to {path.stem}.yaml.")
        for path in sorted(folder.glob("*.yaml")):
            one = read_set(path)
            if one.name in found and found[one.name][1].parent == folder:
                raise ContractError(f"{path}: name: {one.name} is declared in {found[one.name][1].name} too.")
            found[one.name] = (one, path)
    return found


def usable_sets(contracts: Mapping[str, Contract], *folders: Path) -> dict[str, tuple[TrainingSet, Path]]:
    """The training sets that can be built, by name: of the package those whose sources have contracts, and the users'.

    Raises:
        ContractError: a file is not a training set, or asks for what no contract has.
    """
    found = {}
    for name, (one, path) in load_sets(*folders).items():
        if path.parent != SETS:
            check_set(path, one, contracts)
        elif not {"interactions", *(["contexts"] if one.context else []), *one.features} <= contracts.keys():
            continue
        found[name] = (one, path)
    return found


def named(name: str, found: Mapping[str, tuple[TrainingSet, Path]]) -> tuple[TrainingSet, Path]:
    """One of the training sets.

    Raises:
        UserError: there is none of this name.
    """
    if name not in found:
        raise UserError(f"{name!r} is not a training set; choose from {', '.join(found)}.")
    return found[name]


def read_set(path: Path) -> TrainingSet:
    """The training set that a file declares.

    Raises:
        ContractError: it cannot be read, or is not a training set.
    """
    return parse_set(path, parse_yaml(path, read_text(path)))


def parse_set(path: Path, document: Any) -> TrainingSet:
    """The training set that a document declares.

    Raises:
        ContractError: it is none.
    """
    try:
        found = msgspec.convert(document, TrainingSet)
    except msgspec.ValidationError as error:
        raise ContractError(f"{path}: {error}. docs/training.md lists what a training set declares.") from None
    if not NAME.fullmatch(found.name):
        raise ContractError(f"{path}: name is {found.name!r}; expected lower-case letters, digits and underscores.")
    for one in found.labels:
        if isinstance(one.weight, float) and not (one.weight and isfinite(one.weight)):
            raise ContractError(
                f"{path}: labels: weight of {one.type} is {one.weight}; expected a number that is not 0."
            )
    for name in ("window", "maturity", "gap"):
        _duration(path, name, found.split.gap if name == "gap" else getattr(found, name))
    for name in ("validation", "test"):
        given = getattr(found.split, name)
        if isinstance(given, str):
            if found.split.by != "time":
                raise ContractError(f"{path}: split.{name} is {given!r}; a split by {found.split.by} takes a share.")
            _duration(path, f"split.{name}", given)
    shares = [one for one in (found.split.validation, found.split.test) if isinstance(one, float)]
    if sum(shares) >= 1:
        raise ContractError(f"{path}: split leaves nothing to train on: validation and test are {sum(shares):.0%}.")
    if found.split.gap != "0s" and found.split.by != "time":
        raise ContractError(f"{path}: split.gap needs a split by time, and this one is by {found.split.by}.")
    types = [label.type for label in found.labels]
    twice = next((one for one in types if types.count(one) > 1), None)
    if twice:
        raise ContractError(f"{path}: labels: {twice} is listed twice; one weight can be SQL over the event.")
    for name, listed in (("context", found.context), ("features", found.features)):
        if again := next((one for one in listed if listed.count(one) > 1), None):
            raise ContractError(f"{path}: {name}: {again} is listed twice.")
    refunded = next((one.type for one in found.labels if one.refunds == "negate"), None)
    if refunded and not found.duration("maturity"):
        raise ContractError(
            f"{path}: labels: {refunded} is negated by refunds within maturity, which is {found.maturity}. Expected a "
            "maturity above 0, or no refunds: negate."
        )
    if found.rows == "impressions" and "impression" in types:
        raise ContractError(f"{path}: labels: an impression is a row, not an outcome. Remove it from labels.")
    if found.duration("maturity") < found.duration("window") and found.rows == "impressions":
        raise ContractError(
            f"{path}: maturity is {found.maturity}, and outcomes count for {found.window}; expected at least as long."
        )
    return found


def check_set(path: Path, declared: TrainingSet, contracts: Mapping[str, Contract]) -> None:
    """Refuse what a declaration asks of datasets that are not as it expects.

    Raises:
        ContractError: naming file and field.
    """
    from duckdb import Error

    if declared.name in OTHER_ASSETS:
        raise ContractError(f"{path}: name: {declared.name} is the name of another asset. Choose another one.")
    if declared.name in contracts:
        raise ContractError(f"{path}: name: {declared.name} is the name of a dataset. Choose another one.")
    kinds = RANKERS if declared.rows == "impressions" else MODELS
    for name, parameters in declared.models.items():
        kind = parameters.get("kind", name)
        if kind not in kinds:
            raise ContractError(
                f"{path}: models: {kind!r} is not a model for rows of {declared.rows}; choose from {', '.join(kinds)}."
            )
        if not NAME.fullmatch(name):
            raise ContractError(f"{path}: models: {name!r} is not lower-case letters, digits and underscores.")
    for name in declared.features:
        if name not in contracts or contracts[name].kind is not Kind.FEATURE_VIEW:
            views = ", ".join(one for one, it in contracts.items() if it.kind is Kind.FEATURE_VIEW)
            raise ContractError(f"{path}: features: {name!r} is not a feature view; choose from {views}.")
    missing = [one for one in declared.context if one not in _names(contracts, "contexts")]
    if missing:
        raise ContractError(f"{path}: context: {', '.join(missing)} is not a column of contexts.")
    if taken := [one for one in declared.context if one in OWN_COLUMNS]:
        raise ContractError(f"{path}: context: rows have their own column {', '.join(taken)}. Remove it from context.")
    known = contracts["interactions"].column("type").enum
    for one in declared.labels:
        if known and one.type not in known:
            raise ContractError(f"{path}: labels: {one.type!r} is not a type of event; choose from {', '.join(known)}.")
    columns = {one.name: duckdb_type(one.type) for one in contracts["interactions"].columns}
    written = [(f"labels: weight of {one.type}", one.weight) for one in declared.labels if isinstance(one.weight, str)]
    with open_session() as connection:
        for place, sql, row in (
            *((place, sql, columns) for place, sql in written),
            *([("bots", declared.bots, BOT_COLUMNS)] if declared.bots else []),
        ):
            try:
                (kind,) = types_of(connection, [sql], row)
            except (ForbiddenSql, Error) as error:
                first = str(error).splitlines()[0]
                raise ContractError(f"{path}: {place}: {sql!r} cannot be used: {first}") from None
            if place == "bots" and kind != "BOOLEAN":
                raise ContractError(f"{path}: bots: {sql!r} is {kind}; expected a condition.")
            if place != "bots" and kind not in NUMBERS and not kind.startswith("DECIMAL"):
                raise ContractError(f"{path}: {place}: {sql!r} is {kind}; expected a number.")
    if declared.bots and reads_agents(declared) and AGENT not in _names(contracts, "contexts"):
        raise ContractError(f"{path}: bots: {AGENT} is a column of contexts, which no contract has. Leave it out.")


def weight_columns(declared: TrainingSet) -> set[str]:
    """Columns of events that weights of labels use, in lower case."""
    written = [one.weight for one in declared.labels if isinstance(one.weight, str)]
    with open_session() as connection:
        return set[str]().union(*references(connection, written))


def reads_agents(declared: TrainingSet) -> bool:
    """Whether the rule for bots uses the browser of a visitor, which is in `contexts`."""
    return AGENT in (declared.bots or "").lower()


def _names(contracts: Mapping[str, Contract], dataset: str) -> Sequence[str]:
    return [one.name for one in contracts[dataset].columns] if dataset in contracts else []


def _duration(path: Path, name: str, value: str) -> None:
    try:
        found = parse_duration(value)
    except (ValueError, TypeError) as error:
        raise ContractError(f"{path}: {name}: {error}.") from None
    if found > LONGEST:
        raise ContractError(f"{path}: {name}: {value!r} is longer than {LONGEST // DAY:,} days.")
