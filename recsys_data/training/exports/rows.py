"""The rows of a version as exports read them: SQL over its Parquet files, and what its columns are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from recsys_data.errors import UserError
from recsys_data.sql import literal, open_session, quote
from recsys_data.training.sets.files import NAMED
from recsys_data.training.sets.manifest import Manifest, check_files
from recsys_data.training.sets.spine import KEPT, PREVIOUS
from recsys_data.training.sets.split import SPLITS

# The place of a row in the file of its split; an SQL name that no column can have.
ROW = "file_row_number"
# The user of a row; before they have signed in, the visitor.
USER = "coalesce(user_id, visitor_id)"
LINE_ENDS = r"[\r\n]"


@dataclass(frozen=True)
class Options:
    """What some formats take.

    Attributes:
        currency: ISO 4217 code of the labels of purchases.
    """

    currency: str | None = None


@dataclass
class Written:
    """What was written, and what was not.

    Attributes:
        rows: split -> rows in its files.
        rows_left_out: reason -> rows.
        columns_left_out: column -> reason.
    """

    rows: dict[str, int] = field(default_factory=dict)
    rows_left_out: dict[str, int] = field(default_factory=dict)
    columns_left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """Columns of context and features by what they hold.

    Attributes:
        names: those that models can use, in the order of the files.
        numbers, flags, categories: those of `names` that are numbers, true or false, text.
        left_out: the others, column -> reason.
    """

    names: list[str]
    numbers: list[str]
    flags: list[str]
    categories: list[str]
    left_out: dict[str, str]


class Rows:
    """The rows of a version, read with a DuckDB session of its own.

    Args:
        folder: of the version.
        manifest: of the version.
        memory_bytes: what the session may hold before it spills.

    Raises:
        UserError: the files are not kept any more.
        Permanent: they are not as the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, memory_bytes: int | None = None) -> None:
        self.manifest = manifest
        self.files = {split: folder / f"{split}.parquet" for split in SPLITS if f"{split}.parquet" in manifest.files}
        if not self.files:
            raise UserError(f"{manifest.name} {manifest.version} has no rows; there is nothing to export.")
        check_files(manifest, folder)
        self.connection = open_session(True, memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def of(self, split: str) -> str:
        """SQL of the rows of a split, in their order; of none, if it has none."""
        if split in self.files:
            return f"SELECT * FROM read_parquet({literal(str(self.files[split]))}, file_row_number = true)"
        return f"SELECT * FROM ({self.of(next(iter(self.files)))}) LIMIT 0"

    def all(self) -> str:
        """SQL of the rows of all splits, in no order."""
        return " UNION ALL ".join(self.of(split) for split in self.files)

    def features(self) -> Features:
        """The columns of context and features."""
        kinds: dict[str, list[str]] = {"number": [], "flag": [], "category": []}
        names, left_out = [], {}
        for name, type_ in self.manifest.columns.items():
            if name in KEPT or name in NAMED.values():
                continue
            kind, reason = _kind(type_) if name != PREVIOUS else (None, "an id")
            if kind is None:
                left_out[name] = reason
            else:
                names.append(name)
                kinds[kind].append(name)
        return Features(names, kinds["number"], kinds["flag"], kinds["category"], left_out)

    def refuse(self, column: str, condition: str, why: str, value: str | None = None) -> None:
        """Refuse a set of which some value has no place in a format.

        Args:
            column: for the message.
            condition: SQL, true for what is refused.
            why: what cannot be, and what to do; ends the message.
            value: SQL of the value; by default that of the column.

        Raises:
            UserError: there is such a value; names it.
        """
        of = value or quote(column)
        found = self.connection.execute(f"SELECT {of} FROM ({self.all()}) WHERE {condition} LIMIT 1").fetchone()
        if found:
            raise UserError(f"{column} of {self.manifest.name} {self.manifest.version} has {found[0]!r}: {why}")

    def counts(self, condition: str = "true") -> dict[str, int]:
        """How many rows there are of each split."""
        return {
            split: self.connection.execute(f"SELECT count(*) FROM ({self.of(split)}) WHERE {condition}").fetchall()[0][
                0
            ]
            for split in SPLITS
        }

    def copy(self, query: str, path: Path, **options: str) -> None:
        """Write what a query gives, in its order.

        Args:
            query: SQL.
            path: of the file.
            options: of DuckDB's COPY, each as SQL.
        """
        listed = ", ".join(f"{name} {value}" for name, value in options.items())
        self.connection.execute(f"COPY ({query}) TO {literal(str(path))} ({listed})")


def renamed(columns: Mapping[str, str]) -> str:
    """The list of a SELECT: name -> SQL.

    >>> renamed({"USER_ID": "visitor_id"})
    'visitor_id AS "USER_ID"'
    """
    return ", ".join(f"{value} AS {quote(name)}" for name, value in columns.items())


def _kind(type_: str) -> tuple[str | None, str]:
    """What a column of an Arrow type holds: `number`, `flag`, `category`, or None and the reason to leave it out."""
    if type_.startswith(("int", "uint", "float", "double", "halffloat", "decimal")):
        return "number", ""
    if type_ == "bool":
        return "flag", ""
    if type_ in ("string", "large_string", "string_view"):
        return "category", ""
    if type_.startswith(("timestamp", "date", "time")):
        return None, "a moment: a feature of the time since then says more to a model"
    return None, f"{type_}: not one value a row"
