"""Scenarios as they are declared: one YAML file each, checked when it is read.

Data flow: `scenarios/*.yaml` of this package, then `scenarios/*.yaml` of the folder that RECSYS_DATA_CONTRACTS names
-> `Scenario`. A file replaces the one of its name.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from recsys_data.contracts import Contract
from recsys_data.contracts.rules import check_predicates
from recsys_data.contracts.yaml_text import parse_yaml, read_text
from recsys_data.errors import ContractError, UserError
from recsys_data.serving.answers import MAX_ITEMS
from recsys_data.serving.catalogue import ITEMS
from recsys_data.serving.exploration import Exploration
from recsys_data.serving.segments import check_segment

SCENARIOS = Path(__file__).parent
# In a user's folder of contracts.
FOLDER = "scenarios"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

# What a variant may change.
CHANGED = ("model", "alias", "ranker", "ranker_alias", "candidates", "exploration")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)]
CONTENT, BY_SEGMENT = "content", "popular_by_segment"
Source = Literal["session", "similar", "model", "popular", "content", "popular_by_segment"]
Filter = Literal["seen", "same_category"]


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variant of a scenario's experiment: what is None is as in the scenario.

    Attributes:
        share: of the visitors.
        model, alias, ranker, ranker_alias, candidates, exploration: as of a scenario.
    """

    share: Share
    model: str | None = None
    alias: str | None = None
    ranker: str | None = None
    ranker_alias: str | None = None
    candidates: Annotated[tuple[Source, ...], msgspec.Meta(min_length=1)] | None = None
    exploration: Exploration | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place where items are recommended.

    Attributes:
        name: by which requests choose it; the `list_id` of its impressions.
        description: for people.
        model: the registered model.
        alias: the version of it.
        ranker: the registered ranker that orders the candidates by features; empty: ranks are fused.
        ranker_alias: the version of that.
        n: how many items, if the request does not say.
        candidates: where items come from: `session` (similar to those that the visitor met last), `similar` (to the
            items of the request), `model` (what the model recommends to the visitor), `popular`, `content` (items that
            the model does not know, like those), `popular_by_segment` (popular with visitors of the same segment).
        segment: column of `contexts` or `user_profiles` that makes segments.
        filters: items that are left out: those that the visitor has `seen`; those that are not in the `same_category`
            as the item that is looked at.
        rules: name -> SQL over a row of the item catalogue; items for which it is false are left out.
        exploration: probability with which an answer is a uniformly random order of its shortlist; or
            `{temperature: T}`, by which the order is drawn with regard to scores.
        shortlist: how many of the best items are shuffled then, if that is more than are asked for.
        budget_ms: after so many milliseconds the answer does not wait for a source any more.
        variants: name -> share of the visitors, or what differs. Shares add up to 1.
    """

    name: str
    description: str = ""
    model: str = "next_items"
    alias: str = "champion"
    ranker: str = ""
    ranker_alias: str = "champion"
    n: Count = 10
    candidates: Annotated[tuple[Source, ...], msgspec.Meta(min_length=1)] = ("session", "model")
    segment: str = ""
    filters: tuple[Filter, ...] = ()
    rules: dict[str, str] = {}
    exploration: Exploration = 0.0
    shortlist: Count = 20
    budget_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    variants: dict[str, Share | Variant] = {}


class Chosen(msgspec.Struct, frozen=True):
    """A scenario as a variant changes it.

    Attributes:
        variant: None without an experiment.
        scenario: has no variants.
    """

    variant: str | None
    scenario: Scenario


class Scenarios:
    """All scenarios, and the variant of each that a visitor is in.

    Args:
        declared: by name.
    """

    def __init__(self, declared: Mapping[str, Scenario]) -> None:
        self.declared = declared
        self._variants = {name: _variants(one) for name, one in declared.items()}

    @classmethod
    def of(cls, *folders: Path, contracts: Mapping[str, Contract] | None = None) -> "Scenarios":
        """The scenarios of the package and of folders of contracts.

        Args:
            folders: of contracts.
            contracts: that rules and segments have to fit; None: that is not checked.

        Raises:
            ContractError: a file is not a scenario; names file and field, and says what was expected.
            UserError: a segment is made of a column that may not be used for personalisation.
        """
        return cls(load_scenarios(*folders, contracts=contracts))

    def choose(self, name: str, visitor: str) -> Chosen:
        """The scenario of this name for a visitor, who is always in the same variant while the shares stay.

        Raises:
            UserError: there is no such scenario.
        """
        found = self._variants.get(name)
        if found is None:
            raise UserError(f"scenario is {name[:64]!r}; expected one of {', '.join(self.declared)}.")
        if len(found) == 1:
            return found[0][1]
        at = bucket(name, visitor)
        return next((chosen for end, chosen in found if at < end), found[-1][1])

    @property
    def models(self) -> set[tuple[str, str]]:
        """Name and alias of every model that an answer may need."""
        return {(it.scenario.model, it.scenario.alias) for found in self._variants.values() for _, it in found}

    @property
    def rules(self) -> set[str]:
        """SQL of every rule."""
        return {sql for one in self.declared.values() for sql in one.rules.values()}

    @property
    def segments(self) -> set[str]:
        """The columns by which popular items are counted."""
        return {one.segment for one in self.declared.values() if one.segment}

    @property
    def uses_content(self) -> bool:
        """Whether an answer may need to know what items are like."""
        return any(CONTENT in it.scenario.candidates for found in self._variants.values() for _, it in found)

    @property
    def rankers(self) -> set[tuple[str, str]]:
        """Name and alias of every ranker that an answer may need."""
        chosen = [it.scenario for found in self._variants.values() for _, it in found]
        return {(one.ranker, one.ranker_alias) for one in chosen if one.ranker}


def bucket(scenario: str, visitor: str) -> float:
    """Where a visitor is in [0, 1); independent between scenarios.

    >>> bucket("home", "u1") == bucket("home", "u1") != bucket("cart", "u1")
    True
    """
    digest = blake2b(f"{scenario}\n{visitor}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _variants(scenario: Scenario) -> list[tuple[float, Chosen]]:
    plain = msgspec.structs.replace(scenario, variants={})
    if not scenario.variants:
        return [(1.0, Chosen(None, plain))]
    found, end = [], 0.0
    for name, given in scenario.variants.items():
        it = given if isinstance(given, Variant) else Variant(given)
        changes = {key: getattr(it, key) for key in CHANGED}
        changed = {key: value for key, value in changes.items() if value is not None}
        end += it.share
        found.append((end, Chosen(name, msgspec.structs.replace(plain, **changed))))
    return found


def load_scenarios(*folders: Path, contracts: Mapping[str, Contract] | None = None) -> dict[str, Scenario]:
    """The scenarios of the package and of folders of contracts, by name; see `Scenarios.of`.

    Raises:
        ContractError: a file is not a scenario.
        UserError: as `Scenarios.of`.
    """
    found = {}
    for folder in (SCENARIOS, *(one / FOLDER for one in folders)):
        for path in sorted(folder.glob("*.yaml")):
            one = read_scenario(path, contracts)
            found[one.name] = one
    return found


def read_scenario(path: Path, contracts: Mapping[str, Contract] | None = None) -> Scenario:
    """The scenario of a file.

    Raises:
        ContractError: it is none, or does not fit the contracts.
        UserError: as `Scenarios.of`.
    """
    found = parse_scenario(path, parse_yaml(path, read_text(path)))
    if contracts is not None:
        _check_fits(path, found, contracts)
    return found


def parse_scenario(path: Path, document: Any) -> Scenario:
    """The scenario that a document declares.

    Raises:
        ContractError: it is none.
    """
    try:
        found = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        raise ContractError(f"{path}: {error}. docs/serving.md lists what a scenario declares.") from None
    if not NAME.fullmatch(found.name):
        raise ContractError(f"{path}: name is {found.name!r}; expected lower-case letters, digits and underscores.")
    wrong = next((name for name in found.variants if not VARIANT.fullmatch(name)), None)
    if wrong is not None:
        raise ContractError(f"{path}: variants: {wrong!r} is not a name; expected letters, digits, '_', '.' and '-'.")
    changed = [one.candidates or () for one in found.variants.values() if isinstance(one, Variant)]
    if not found.segment and any(BY_SEGMENT in some for some in (found.candidates, *changed)):
        raise ContractError(
            f"{path}: segment is missing; {BY_SEGMENT} needs a column of contexts or user_profiles, "
            "such as device_type."
        )
    shares = sum(one.share if isinstance(one, Variant) else one for one in found.variants.values())
    if found.variants and abs(shares - 1) > 1e-9:
        raise ContractError(f"{path}: variants: the shares add up to {shares:g}; expected 1.")
    return found


def _check_fits(path: Path, scenario: Scenario, contracts: Mapping[str, Contract]) -> None:
    """Refuse rules and segments that do not fit the contracts."""
    if scenario.rules:
        if ITEMS not in contracts:
            raise ContractError(f"{path}: rules: there is no contract {ITEMS}, whose rows they are about.")
        named = {f"rules: {name}": sql for name, sql in scenario.rules.items()}
        check_predicates(str(path), contracts[ITEMS], named)
    if scenario.segment:
        check_segment(str(path), scenario.segment, contracts)
