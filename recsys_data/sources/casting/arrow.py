"""Values of any source -> Arrow columns of the contract's types.

Data flow: batch of whatever Arrow types a reader gives -> what is typed already is cast and must fit; what is text
is cast by one DuckDB statement (`sql.py`), and text that is not what a column takes makes a problem row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.types import arrow_type, decimal_of
from recsys_data.errors import UserError
from recsys_data.sources.casting.sql import SHOWN, cast_sql
from recsys_data.sources.source import PROBLEMS, ROW
from recsys_data.sql import open_session

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_data.sources.source import ColumnRequest

# What it says begins so; what is wrong with a cell begins with the name of its column, which holds no blank.
OF_ROW = "line "
MAX_ROWS = 100_000
# Microseconds from 1970 to the first and last moments that everything that reads the lake can hold.
FIRST_MOMENT = -62_135_596_800_000_000
LAST_MOMENT = 253_402_300_799_999_999
DAY = 86_400_000_000
ADVICE = "Change the type in the contract, or cast the column in a `query` of the server"


class Unfit(Exception):
    """A typed value that the column cannot hold; `Caster` turns it into a `UserError` with the names."""


class Caster:
    """Casts batches of one source; holds a DuckDB session, so `close` it.

    Args:
        wanted: the columns of every batch, in order; their names are the contract's.
        where: what to call the source in messages.
        raw_json: text columns hold JSON values as spelled in the document, strings with their quotes.
        exact: columns whose text stands for a typed value of the source, with the name of that type; a misfit of
            such a value is an error of the contract, not of the row.
    """

    def __init__(
        self,
        wanted: "Sequence[ColumnRequest]",
        where: str,
        raw_json: bool = False,
        exact: "Mapping[str, str] | None" = None,
    ):
        self.wanted = wanted
        self.where = where
        self.raw_json = raw_json
        self.exact = exact or {}
        self._session = open_session()
        self._statements: dict[tuple[bool, ...], str] = {}

    def close(self) -> None:
        self._session.close()

    def cast(self, batch: "pa.RecordBatch") -> "Iterator[pa.RecordBatch]":
        """The rows of a batch, typed, with `_problems` as the last column, in batches of at most `MAX_ROWS`.

        Raises:
            UserError: a typed value does not fit; names server, column, type and what to do.
        """
        for start in range(0, batch.num_rows, MAX_ROWS):
            yield self._cast(batch.slice(start, MAX_ROWS))

    def _cast(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        typed: dict[int, pa.Array] = {}
        texts: dict[int, pa.Array] = {}
        exact: set[int] = {number for number, column in enumerate(self.wanted) if column.name in self.exact}
        for number, column in enumerate(self.wanted):
            try:
                array, is_text, is_exact = cast_column(batch.column(column.name), column.type)
            except (Unfit, pa.ArrowException) as error:
                raise self._misfit(column, str(batch.column(column.name).type), str(error)) from None
            (texts if is_text else typed)[number] = array
            if is_text and is_exact:
                exact.add(number)
        row = batch.column(ROW) if ROW in batch.schema.names else None
        problems: pa.Array = pa.nulls(batch.num_rows, pa.list_(pa.string()))
        if texts or row is not None:
            cast, problems = self._cast_texts(texts, row, batch.num_rows)
            for number in exact & cast.keys():
                self._check_exact(number, texts[number], cast[number])
            typed |= cast
        names = [*(column.name for column in self.wanted), PROBLEMS]
        return pa.RecordBatch.from_arrays([*(typed[n] for n in range(len(self.wanted))), problems], names)

    def _cast_texts(
        self, texts: "dict[int, pa.Array]", row: "pa.Array | None", rows: int
    ) -> "tuple[dict[int, pa.Array], pa.Array]":
        import numpy as np
        import pyarrow as pa

        key = tuple(number in texts for number in range(len(self.wanted)))
        if key not in self._statements:
            self._statements[key] = cast_sql({n: self.wanted[n] for n in texts}, self.raw_json)
        order = pa.array(np.arange(rows))
        arrays = {f"r{n}": array for n, array in texts.items()}
        arrays |= {"n": order, ROW: pa.nulls(rows, pa.string()) if row is None else row}
        self._session.register("given", pa.table(arrays))
        found = self._session.sql(self._statements[key]).to_arrow_table()
        # Columns that need no cast stay outside the statement, so that its rows must come in their order.
        if not found["n"].combine_chunks().equals(order):
            found = found.sort_by("n")
        cast = {n: _whole(found[f"t{n}"], arrow_type(self.wanted[n].type)) for n in texts}
        return cast, _whole(found[PROBLEMS], pa.list_(pa.string()))

    def _check_exact(self, number: int, given: "pa.Array", cast: "pa.Array") -> None:
        import pyarrow.compute as pc

        if given.null_count != cast.null_count:
            lost = pc.indices_nonzero(pc.and_(given.is_valid(), cast.is_null()))
            if len(lost):
                column = self.wanted[number]
                value = given[lost[0].as_py()].as_py()
                raise self._misfit(column, self.exact.get(column.name, "typed values"), f"{value[:SHOWN]} does not fit")

    def _misfit(self, column: "ColumnRequest", found: str, why: str) -> UserError:
        first = (why.strip().splitlines() or ["it does not fit"])[0].removesuffix(".")
        return UserError(
            f"{self.where}: column {column.source} holds {found}; {column.name} takes {column.type}: {first}. {ADVICE}."
        )


def _whole(column: "pa.ChunkedArray", kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    array = column.combine_chunks()
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    return array if array.type == kind else array.cast(kind)


def cast_column(array: "pa.Array", logical: str) -> "tuple[pa.Array, bool, bool]":
    """What becomes of one column: (array, whether it is text still to be cast, whether a misfit is an error).

    Raises:
        Unfit: no value of this Arrow type, or not this value, can be held.
    """
    import pyarrow as pa

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return cast_column(_storage(array), logical)
    if pa.types.is_dictionary(kind):
        return cast_column(array.dictionary_decode(), logical)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), arrow_type(logical)), False, False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string()), True, False
    if pa.types.is_nested(kind):
        return _cast_nested(array, logical)
    if decimal_of(logical) and pa.types.is_floating(kind):
        # The shortest spelling of a float is what was meant: 19.99, not 19.989999999999998.
        return array.cast(pa.string()), True, False
    if decimal_of(logical) and pa.types.is_integer(kind):
        return array.cast(pa.string()), True, True
    for takes, cast in _scalars(logical):
        if takes(kind):
            return cast(array), False, False
    raise Unfit(f"no {logical} is made of {kind}")


def _storage(array: Any) -> "pa.Array":
    import uuid

    import pyarrow as pa

    if array.type.extension_name == "arrow.uuid":
        values = array.storage.to_pylist()
        return pa.array([None if value is None else str(uuid.UUID(bytes=value)) for value in values], pa.string())
    return array.storage


def _cast_nested(array: "pa.Array", logical: str) -> "tuple[pa.Array, bool, bool]":
    import pyarrow as pa

    kind = array.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and logical.startswith("list<"):
        of_integers = pa.types.is_integer(kind.value_type)
        of_numbers = of_integers or pa.types.is_floating(kind.value_type)
        of_text = pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
        if {"list<integer>": of_integers, "list<number>": of_numbers, "list<string>": of_integers or of_text}[logical]:
            return array.cast(arrow_type(logical)), False, False
    elif logical not in ("object", "map") and not (is_list and logical == "array"):
        raise Unfit(f"no {logical} is made of {kind}")
    with open_session() as session:
        session.register("given", pa.table({"value": array}))
        # NULL and the JSON null are not the same.
        sql = "SELECT CASE WHEN value IS NOT NULL THEN to_json(value)::VARCHAR END AS text FROM given"
        return _whole(session.sql(sql).to_arrow_table()["text"], pa.string()), True, True


def _scalars(logical: str) -> "list[tuple[Callable[[Any], bool], Callable[[Any], pa.Array]]]":
    """The Arrow types a column takes as they are, each with its cast."""
    import pyarrow as pa

    types = pa.types
    goal = arrow_type(logical)

    def plain(array: Any) -> "pa.Array":
        return array.cast(goal)

    if decimal_of(logical):
        return [(types.is_decimal, plain)]
    return {
        "string": [
            (types.is_binary, plain),
            (types.is_large_binary, plain),
            (types.is_primitive, plain),
            (types.is_decimal, plain),
        ],
        "integer": [(types.is_integer, plain), (types.is_floating, plain), (types.is_decimal, plain)],
        "number": [(types.is_integer, plain), (types.is_floating, plain), (types.is_decimal, plain)],
        "boolean": [(types.is_boolean, plain), (types.is_integer, _truth)],
        "timestamp": [(types.is_timestamp, _moment), (types.is_date, _moment)],
        "local timestamp": [(_is_local, _local_moment), (types.is_date, _local_moment)],
        "date": [(types.is_date, _day), (_is_local, _day)],
        "binary": [(types.is_binary, plain), (types.is_large_binary, plain), (types.is_fixed_size_binary, plain)],
    }.get(logical, [])


def _is_local(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_timestamp(kind) and kind.tz is None


def _truth(array: Any) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.min_max(array)
    if found["min"].is_valid and (found["min"].as_py() < 0 or found["max"].as_py() > 1):
        raise Unfit(f"{found['max'].as_py() if found['min'].as_py() >= 0 else found['min'].as_py()} is neither 0 nor 1")
    return array.cast(pa.bool_())


def _local_moment(array: Any) -> "pa.Array":
    """Microseconds; what is finer is cut off, what lies beyond the years 1 to 9999 is refused."""
    import pyarrow as pa

    if pa.types.is_date(array.type):
        array = _day(array)
    if getattr(array.type, "unit", "") == "ns":
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    array = array.cast(pa.timestamp("us", getattr(array.type, "tz", None)))
    _check_range(array.cast(pa.int64()), 1)
    return array


def _moment(array: Any) -> "pa.Array":
    import pyarrow as pa

    # A time without a zone is UTC, which is how Arrow takes it too.
    return _local_moment(array).cast(pa.timestamp("us", "UTC"))


def _day(array: Any) -> "pa.Array":
    import pyarrow as pa

    day = array.cast(pa.date32())
    if not day.cast(array.type).equals(array):
        raise Unfit("a time that is not midnight")
    _check_range(day.cast(pa.int32()), DAY)
    return day


def _check_range(values: Any, unit: int) -> None:
    import pyarrow.compute as pc

    found = pc.min_max(values)
    if not found["min"].is_valid:
        return
    if found["min"].as_py() * unit < FIRST_MOMENT or found["max"].as_py() * unit > LAST_MOMENT:
        raise Unfit("a time beyond the years 1 to 9999, or an infinite one")
