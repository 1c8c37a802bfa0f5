"""RecBole atomic files -> ratings as events in event-time order, users and items as known on the day of the newest.

Data flow: `NAME.inter` -> DuckDB (sorts, and words the lines) -> lines; `NAME.user` and `NAME.item`, where they are
there -> one row each of `user_profiles` and `item_catalog`. Cells are separated by tabs; the header names each column
and its type, `user_id:token`, of `token`, `token_seq`, `float` and `float_seq`, whose parts are separated by spaces.
A `.inter` file needs `user_id`, `item_id`, `rating` and `timestamp` (seconds since 1970); other columns are
`properties`. Of items `title`, `genres`, `brand` and `release_year` come from the columns that RecBole's data sets have
for them, of users `gender`; what else is known is in `attributes`.
Events are named by the number of their row among those that can be read, `recbole:NAME:1`: a user may rate an item
twice at one moment. A time or rating that cannot be read is passed on as text, and a row with a wrong number of cells
as a whole, for ingestion to reject.
Run it alone: `recsys-data load recbole FOLDER`. The format: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from recsys_data.errors import UserError
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.csv_files import SHOWN, read_csv, read_header
from recsys_data.sources.datasets.landing import State
from recsys_data.sources.datasets.staging import BATCH_LINES, Scratch, Staging
from recsys_data.sql import literal, quote

SOURCE = "recbole"
TYPES = ("token", "token_seq", "float", "float_seq")
EVENT = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}

# Seconds since 1970; more digits would be milliseconds, or beyond the year 5138.
SECONDS = "regexp_full_match(timestamp, '[0-9]{1,11}([.][0-9]{1,6})?')"
HAPPENED = f"CASE WHEN {SECONDS} THEN (timestamp::DECIMAL(20, 6) * 1000000::DECIMAL(7, 0))::BIGINT END"
NUMBER = "regexp_full_match({0}, '-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?')"
MOMENT = "make_timestamp(happened)"
TIME = f"""CASE WHEN happened IS NULL THEN timestamp
    WHEN happened % 1000000 = 0 THEN strftime({MOMENT}, '%Y-%m-%dT%H:%M:%SZ')
    ELSE strftime({MOMENT}, '%Y-%m-%dT%H:%M:%S.%fZ') END"""
EVENT_LINE = f"""{{
    'event_id': event_id, 'type': 'rating', 'user_id': user_id, 'item_id': item_id, 'event_ts': {TIME},
    'rating': CASE WHEN {NUMBER.format("rating")} THEN rating::JSON ELSE to_json(rating) END,
    'source': '{SOURCE}', 'properties': properties}}"""
# A merge patch leaves out what is null.
LINE = f"coalesce(line, encode(json_merge_patch('{{}}', to_json({EVENT_LINE}))::VARCHAR))"

TITLE = ("title", "movie_title", "item_name", "book_title", "name")
GENRES = ("genres", "genre", "class")


@dataclass(frozen=True, slots=True)
class AtomicFile:
    """A file and its columns, name -> type."""

    path: Path
    columns: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> "AtomicFile":
        """Read the header.

        Raises:
            UserError: it is not one of an atomic file.
        """
        header = read_header(path, tabs=True)
        parts = [name.rpartition(":") for name in header]
        columns = {name: kind for name, _, kind in parts}
        wrong = [name for name, _, kind in parts if not name or kind not in TYPES]
        if wrong or len(columns) < len(header):
            raise UserError(
                f"{path} has the columns {', '.join(header)[:SHOWN]}. Expected names with a type, separated by tabs, "
                f"e.g. user_id:token; types are {', '.join(TYPES)}; each name once."
            )
        return cls(path, columns)

    @property
    def header(self) -> list[str]:
        return [f"{name}:{kind}" for name, kind in self.columns.items()]

    def require(self, wanted: Mapping[str, str]) -> None:
        """Refuse a file without these columns.

        Raises:
            UserError: naming those that are missing.
        """
        missing = [f"{name}:{kind}" for name, kind in wanted.items() if self.columns.get(name) != kind]
        if missing:
            raise UserError(
                f"{self.path} has the columns {', '.join(self.header)[:SHOWN]}. Expected also {', '.join(missing)}."
            )

    def sql(self, name: str) -> str:
        """A column as JSON: text, a number, or a list of them; null for an empty cell."""
        cell, kind = quote(name), self.columns[name]
        of = "CASE WHEN {1} THEN {0}::JSON ELSE to_json({0}) END" if kind.startswith("float") else "to_json({0})"
        if not kind.endswith("_seq"):
            return f"CASE WHEN {cell} <> '' THEN {of.format(cell, NUMBER.format(cell))} END"
        parts = f"list_filter(string_split({cell}, ' '), lambda part: part <> '')"
        return f"to_json(list_transform({parts}, lambda part: {of.format('part', NUMBER.format('part'))}))"


def read(folder: Path) -> Import:
    """One line for each row of `NAME.inter`; users and items as known on the day of the newest rating.

    Raises:
        UserError: there is not one `.inter` file, or a file cannot be read or has another header.
        Transient: the disk has no room to sort.
    """
    path = _inter(folder)
    name = path.name.removesuffix(".gz").removesuffix(".inter")
    inter = AtomicFile.of(path)
    inter.require(EVENT)
    others = [column for column in inter.columns if column not in EVENT]
    properties = ", ".join(f"{literal(column)}: {inter.sql(column)}" for column in others)
    staging = Staging(
        "event_id VARCHAR, user_id VARCHAR, item_id VARCHAR, rating VARCHAR, timestamp VARCHAR, properties JSON"
    )
    select = (
        f"{HAPPENED} AS happened, concat_ws(':', '{SOURCE}', {literal(name)}, row_number) AS event_id, user_id, "
        f"item_id, rating, timestamp, {f'to_json({{{properties}}})' if others else 'NULL::JSON'} AS properties"
    )
    rows_so_far = 0
    for rows, broken in read_csv(path, inter.header, tabs=True):
        numbers = pa.array(np.arange(rows_so_far + 1, rows_so_far + rows.num_rows + 1))
        rows_so_far += rows.num_rows
        staging.add(rows.rename_columns(list(inter.columns)).append_column("row_number", numbers), select)
        staging.add_lines([row.line(SOURCE) for row in broken])
    day = staging.newest()
    states = [
        state
        for kind, dataset in (("user", "user_profiles"), ("item", "item_catalog"))
        for state in _state(folder, name, kind, dataset, staging.scratch, day)
    ]
    return staging.load(LINE, states)


def _inter(folder: Path) -> Path:
    """The one `.inter` file of a folder."""
    there = sorted(path for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(".inter"))
    if len(there) != 1:
        found = ", ".join(path.name for path in (there or sorted(folder.iterdir()))) or "nothing"
        raise UserError(f"{folder} holds {found[:SHOWN]}. Expected one file NAME.inter. Name the folder that holds it.")
    return there[0]


def _state(folder: Path, name: str, kind: str, dataset: str, scratch: Scratch, day: date | None) -> Sequence[State]:
    """The state of users or items on a day; none without a day or a file."""
    there = [path for path in (folder / f"{name}.{kind}", folder / f"{name}.{kind}.gz") if path.is_file()]
    if day is None or not there:
        return ()
    file = AtomicFile.of(there[0])
    key = f"{kind}_id"
    file.require({key: "token"})
    scratch.run(f"CREATE TABLE {kind}s ({', '.join(f'{quote(column)} VARCHAR' for column in file.columns)})")
    broken: list[bytes] = []
    for rows, wrong in read_csv(file.path, file.header, tabs=True):
        named = rows.rename_columns(list(file.columns))
        scratch.insert(f"{kind}s", named, ", ".join(quote(column) for column in file.columns))
        broken += [_without_id(row.file, row.number, row.text) for row in wrong]
    fields = (_item_fields if kind == "item" else _user_fields)(file.columns)
    taken = {column for column, _ in fields.values()}
    rest = ", ".join(
        f"{literal(column)}: nullif({quote(column)}, '')" for column in file.columns if column not in {key, *taken}
    )
    pairs = {key: f"nullif({quote(key)}, '')", **{field: sql for field, (_, sql) in fields.items()}}
    if rest:
        pairs["attributes"] = f"{{{rest}}}"
    line = ", ".join(f"{literal(field)}: {sql}" for field, sql in pairs.items())
    query = (
        f"SELECT encode(json_merge_patch('{{}}', to_json({{{line}}}))::VARCHAR) AS line FROM {kind}s "
        f"ORDER BY length({quote(key)}), {quote(key)}, {', '.join(quote(column) for column in file.columns)}"
    )

    def lines() -> Iterator[list[bytes]]:
        yield from scratch.lines(query)
        yield from (broken[start : start + BATCH_LINES] for start in range(0, len(broken), BATCH_LINES))

    return (State(dataset, day, SOURCE, lines),)


def _user_fields(columns: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field of a profile -> the column that it comes from, and SQL."""
    return {"gender": ("gender", "nullif(gender, '')")} if "gender" in columns else {}


def _item_fields(columns: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field of the catalogue -> the column that it comes from, and SQL."""
    fields: dict[str, tuple[str, str]] = {}
    if title := next((name for name in TITLE if name in columns), None):
        fields["title"] = (title, f"nullif(trim({quote(title)}), '')")
    if (genres := next((name for name in GENRES if columns.get(name) == "token_seq"), None)) is not None:
        fields["genres"] = (genres, f"list_filter(string_split({quote(genres)}, ' '), lambda one: one <> '')")
    if "brand" in columns:
        fields["brand"] = ("brand", "nullif(trim(brand), '')")
    if "release_year" in columns:
        fields["release_year"] = ("release_year", "TRY_CAST(release_year AS INTEGER)")
    return fields


def _without_id(file: str, number: int, text: str) -> bytes:
    """What ingestion rejects, with the text that was there."""
    return msgspec.json.encode({"attributes": {"file": file, "row": str(number), "text": text}})
