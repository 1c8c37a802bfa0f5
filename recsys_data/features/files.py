"""Spines and joined features as files: CSV, TSV, JSON lines or Parquet, by the suffix of their names."""

import uuid
from collections.abc import Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.durable import sync_all
from recsys_data.errors import UserError
from recsys_data.sql import literal, quote

if TYPE_CHECKING:
    import duckdb

# suffix -> (function that reads it, options of COPY)
FORMATS = {
    ".parquet": ("read_parquet", "FORMAT parquet, COMPRESSION zstd"),
    ".csv": ("read_csv", "FORMAT csv, HEADER"),
    ".tsv": ("read_csv", "FORMAT csv, HEADER, DELIMITER '\t'"),
    ".jsonl": ("read_json", "FORMAT json"),
}


def read_spine(connection: "duckdb.DuckDBPyConnection", path: Path, keys: Iterable[str]) -> "duckdb.DuckDBPyRelation":
    """The rows of a spine, in their order.

    Args:
        connection: of `open_features`.
        path: of the file.
        keys: columns that are read as text, because ids are: `007` stays so.

    Raises:
        UserError: there is no such file, or it cannot be read as what its suffix says.
    """
    import duckdb

    function = _format(path)[0]
    if not path.is_file():
        raise UserError(f"The spine {path} does not exist; expected a file in {', '.join(FORMATS)}.")
    source = f"{function}({literal(escape(str(path.absolute())))}"
    try:
        head = connection.sql(f"FROM {source})")
        text = [name for name in head.columns if name in set(keys)]
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in text)
        if function == "read_csv" and text:
            return connection.sql(f"FROM {source}, types = {{{types}}})")
        return head
    except duckdb.Error as error:
        raise UserError(f"The spine {path} cannot be read: {str(error).splitlines()[0]}") from None


def write_joined(connection: "duckdb.DuckDBPyConnection", joined: "duckdb.DuckDBPyRelation", path: Path) -> int:
    """Write rows in their order to a file, which is there whole or not at all; returns how many.

    Raises:
        UserError: the folder does not exist, or the suffix is not known.
    """
    options = _format(path)[1]
    if not path.absolute().parent.is_dir():
        raise UserError(f"The folder {path.absolute().parent} does not exist; make it, or name another file.")
    whole = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    connection.execute("SET preserve_insertion_order = true")
    try:
        ((rows,),) = connection.execute(f"COPY ({joined.sql_query()}) TO {literal(str(whole))} ({options})").fetchall()
        sync_all([whole])
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
    return rows


def knows_nothing(connection: "duckdb.DuckDBPyConnection", path: Path, views: Sequence[str]) -> bool:
    """Whether a file of joined rows has none of which anything was known."""
    known = " OR ".join(f"coalesce({quote(f'{name}__known')}, false)" for name in views)
    source = f"{_format(path)[0]}({literal(escape(str(path.absolute())))})"
    return not connection.sql(f"SELECT count(*) FROM {source} WHERE {known}").fetchall()[0][0]


def _format(path: Path) -> tuple[str, str]:
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path.name} has the suffix {path.suffix or '(none)'}; expected one of {', '.join(FORMATS)}.")
    return FORMATS[path.suffix.lower()]
