"""What clients of other systems call scenarios and types of events, as it is declared in `dialects.yaml`.

Data flow: `dialects.yaml` of this package, then `dialects.yaml` of the folder that RECSYS_DATA_CONTRACTS names
-> `Dialects`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from recsys_data.contracts.yaml_text import parse_yaml, read_text
from recsys_data.errors import ContractError
from recsys_data.ingestion.streaming.collector.segment.commerce import rule_of
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes

FILE = "dialects.yaml"
CUSTOM = "custom"


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file.

    Attributes:
        scenarios: name that clients use -> scenario.
        event_types: name that clients use -> type of an event.
    """

    scenarios: dict[str, str] = {}
    event_types: dict[str, str] = {}


class Dialects:
    """Translates names of clients.

    Args:
        declared: the files; later ones replace entries of earlier ones.
        scenarios: that there are.
        types: the native event types.
    """

    def __init__(self, declared: Collection[Declared], scenarios: Collection[str], types: EventTypes) -> None:
        self.types = types
        self._scenarios = {canonical(name): name for name in scenarios}
        self._event_types: dict[str, str] = {}
        for one in declared:
            self._scenarios |= {canonical(name): scenario for name, scenario in one.scenarios.items()}
            self._event_types |= {canonical(name): kind for name, kind in one.event_types.items()}

    @classmethod
    def of(cls, folders: Collection[Path], scenarios: Collection[str], types: EventTypes) -> "Dialects":
        """What the package and folders of contracts declare.

        Raises:
            ContractError: a file makes no sense; names file and field, and says what was expected.
        """
        paths = [Path(__file__).parent / FILE, *(one / FILE for one in folders if (one / FILE).is_file())]
        return cls([_parsed(path, scenarios, types) for path in paths], scenarios, types)

    def scenario_of(self, name: str) -> str | None:
        """The scenario that a client means; None: there is none of that name."""
        return self._scenarios.get(canonical(name))

    def type_of(self, name: str, native: Mapping[str, object]) -> str:
        """The type of an event with these columns: `custom` if its name means nothing, or it lacks what it needs."""
        kind = self._event_types.get(canonical(name))
        if kind is None:
            rule = rule_of(name, self.types)
            kind = rule.type if rule else CUSTOM
        return self.types.fitting(kind, native)


def canonical(name: str) -> str:
    """A name without case, blanks and punctuation.

    >>> canonical("My-Campaign") == canonical("my_campaign")
    True
    """
    return "".join(filter(str.isalnum, name.lower()))


def _parsed(path: Path, scenarios: Collection[str], types: EventTypes) -> Declared:
    document: Any = parse_yaml(path, read_text(path))
    try:
        found = msgspec.convert(document, Declared)
    except msgspec.ValidationError as error:
        raise ContractError(f"{path}: {error}. docs/serving.md lists what is declared there.") from None
    for name, scenario in found.scenarios.items():
        if scenario not in scenarios:
            raise ContractError(
                f"{path}: scenarios: {name} is {scenario!r}; expected one of {', '.join(sorted(scenarios))}."
            )
    for name, kind in found.event_types.items():
        if kind not in types.required and kind != CUSTOM:
            known = ", ".join(sorted(types.required))
            raise ContractError(f"{path}: event_types: {name} is {kind!r}; expected one of {known} or {CUSTOM}.")
    return found
