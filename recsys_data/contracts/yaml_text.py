"""YAML text -> plain values, as JSON knows them; refused where YAML allows more than a document needs.

What a small file can do to its reader is bounded: no tags that make objects, no aliases that multiply into
gigabytes or lead back into themselves, no key that silently replaces an equal one.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from recsys_data.errors import ContractError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_BYTES = 1024 * 1024
# Values in a document, those behind an alias counted wherever it stands.
MAX_VALUES = 100_000


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ContractError: unreadable, or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}.") from None
    raise ContractError(f"{path}: is larger than {MAX_BYTES} bytes. Split it into datasets of their own.")


def parse_yaml(path: Path, text: str) -> Any:
    """The one document in the text of that file; dates and the like are text.

    Raises:
        ContractError: not such YAML (with line and column).
    """
    try:
        return _parsed(path, text)
    except yaml.MarkedYAMLError as error:
        raise ContractError(f"{path}: is not valid YAML at {_place(error.problem_mark)}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: is not valid YAML: {error}.") from None
    except (AttributeError, LookupError, ValueError, TypeError, RecursionError) as error:
        # What the parser's own constructors raise where a value is none of its tag.
        raise ContractError(f"{path}: is not valid YAML: {error}. Quote what is meant as text.") from None


def line_of(path: Path, column: str, setting: str) -> int | None:
    """The line, from 1, of a setting of a column of the contract in a file; None: it is not there.

    Raises:
        ContractError: the file cannot be read.
    """
    root = LOADER(read_text(path)).get_single_node()
    tables = _children(root, "schema")
    for item in (item for table in tables for item in _children(table, "properties")):
        if _scalar(item, "name") == column:
            found = (one for one in _children(item, "customProperties") if _scalar(one, "property") == setting)
            return next((one.start_mark.line + 1 for one in found if one.start_mark), None)
    return None


def _children(node: yaml.Node | None, key: str) -> list[yaml.Node]:
    """The elements of the sequence that a mapping has for a key."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value.value for name, value in pairs if name.value == key and value.id == "sequence"), [])


def _scalar(node: yaml.Node, key: str) -> str | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value.value for name, value in pairs if name.value == key), None)


def _parsed(path: Path, text: str) -> Any:
    loader = LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        values = _Values(path).count(root)
        if values > MAX_VALUES:
            raise ContractError(f"{path}: its aliases stand for {values} values; at most {MAX_VALUES} are read.")
        return json.loads(json.dumps(loader.construct_document(root), default=str))
    finally:
        loader.dispose()


class _Values:
    """Counts values, and refuses what is not a plain tree of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[int, int | None] = {}

    def count(self, node: yaml.Node) -> int:
        """Values in a node, itself among them."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in self.counts:
            known = self.counts[id(node)]
            if known is None:
                raise self._refusal(node, "an alias lies within what it stands for. Write it out")
            return known
        self.counts[id(node)] = None
        values = node.value
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            values = [part for pair in node.value for part in pair]
        total = 1 + sum(map(self.count, values))
        self.counts[id(node)] = total
        return total

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal(key, "a key is not text. Write a name before the colon")
            if key.value in seen:
                raise self._refusal(key, f"the key {key.value} stands there already. Keep one")
            seen.add(key.value)

    def _refusal(self, node: yaml.Node, message: str) -> ContractError:
        return ContractError(f"{self.path}: {_place(node.start_mark)}: {message}.")


def _place(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
