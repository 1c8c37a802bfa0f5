"""Contracts of the event stream -> the SQL that decodes and validates a batch of events.

Data flow: contracts -> `EventSchema` -> (`decoder.py`: one DuckDB statement per way of decoding).
A statement reads rows of fields (values as they stand in the JSON) and gives every column of every stream
dataset, typed, redacted and computed, with the first reason for which the row is rejected.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.model import Column, Contract, Kind
from recsys_data.contracts.rules import reason_case, redacted_value, session, set_variables, with_computed
from recsys_data.contracts.types import duckdb_type, json_type
from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.deduplication import key_of
from recsys_data.sql import literal, quote

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# The column that keeps what has no column of its own.
UNMODELLED = "properties"
# Where a field outside `properties` and one inside it have the same name, the outer one is kept under this.
OUTER = "$event"

# RFC 3339 as clients write it; the exact way knows the rarer spellings. In years that could leave what a calendar
# can hold, only UTC.
_CLOCK = r"-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_FAR_YEAR = r"([03-9]\d\d[1-9]|[03-9]\d[1-9]0|[03-9][1-9]00|[3-9]000)"
TIME = rf"[12]\d{{3}}{_CLOCK}(Z|[+-]([01]\d|2[0-3]):[0-5]\d)|{_FAR_YEAR}{_CLOCK}Z"
DATE = r"(\d{3}[1-9]|\d\d[1-9]0|\d[1-9]00|[1-9]000)-\d\d-\d\d"
PATTERNS = {"timestamp": TIME, "date": DATE}
# What proves that a value, as it stands in the JSON, is what a column of the type takes. The exact way knows
# longer integers and other spellings of them.
EXACT = {
    "integer": r"regexp_full_match({0}, '-?\d{{1,15}}(\.0)?')",
    "number": "({0} >= '-' AND {0} < ':' AND coalesce(isfinite(try_cast({0} AS DOUBLE)), false))",
    "boolean": "{0} IN ('true', 'false')",
    "object": "starts_with({0}, '{{')",
    "array": "starts_with({0}, '[')",
}

IN = "in_"


class EventSchema:
    """How events become rows of the stream datasets.

    Attributes:
        contracts: the stream datasets, those that need an object in the event (`rowFrom`) last.
        columns: every column of them, once; columns of one name are one column.
        fields: the columns whose value stands in the event's JSON.
        by_source: the same by the path of that value.
        guarded: the fields that are redacted without consent.
        raw: the fields that are kept as JSON text.
        containers: paths of the JSON objects that hold fields, outermost first.
    """

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        stream = [contract for contract in contracts.values() if contract.is_fed_by_events]
        self.contracts = sorted(stream, key=lambda contract: contract.kind is not Kind.EVENTS)
        self.columns: dict[str, Column] = {}
        for contract in self.contracts:
            for column in contract.columns:
                self.columns.setdefault(column.name, column)
        self.fields = [column for column in self.columns.values() if column.source]
        self.by_source = {column.source: column for column in self.fields}
        self.guarded = [c for c in self.fields if c.consent]
        self.raw = [c for c in self.fields if c.type in ("object", "array")]
        paths = {column.source[:depth] for column in self.fields for depth in range(1, len(column.source))}
        self.containers = sorted(paths, key=lambda path: (len(path), path))

    def modelled(self) -> str:
        """A JSON merge patch that removes everything that has a column."""
        return json.dumps(self._nested(lambda column: None, self.fields))

    def _nested(self, field, fields: Collection[Column]) -> dict[str, Any]:
        root: dict[str, Any] = {}
        for column in fields:
            at = root
            for name in column.source[:-1]:
                at = at.setdefault(name, {})
            at[column.source[-1]] = field(column)
        return root

    def fast_fields(self, read: Collection[str] | None = None) -> str:
        """Leaves of `lines(row, line)`, and what it takes to prove that they are all that the lines hold.

        Args:
            read: names of the fields to read; the others are NULL. All by default.
        """
        fields = [c for c in self.fields if read is None or c.name in read]
        structure = json.dumps(self._nested(lambda column: json_type(column.type), fields))
        parsed = f"CASE WHEN json_valid(line) THEN json_transform(line, {literal(structure)}) END"
        values = {c.name: f"{_field('s', c.source)}::VARCHAR" for c in fields}
        selected = ", ".join(f"{values.get(c.name, 'NULL::VARCHAR')} AS {quote(c.name)}" for c in self.fields)
        return f"""
            SELECT row, s IS NOT NULL AS valid, {selected}, {self._checked(fields)},
                   {_field("s", self.columns[UNMODELLED].source)}::VARCHAR AS sent_{UNMODELLED}
            FROM (SELECT row, line, {parsed} AS s FROM lines)"""

    @property
    def always_read(self) -> set[str]:
        """Leaves that must be read even where they hardly occur: what proofs need, and one of each container."""
        names = {UNMODELLED, *(c.name for c in self.guarded), *(c.consent for c in self.guarded if c.consent)}
        for path in self.containers:
            names.add(next(c.name for c in self.fields if c.source[: len(path)] == path))
        return names

    def rests(self) -> str:
        """What has no column, of `rests(row, line, properties)`: alone, and gathered with the properties."""
        clean = f"json_merge_patch(line, {literal(self.modelled())})"
        # The merge patch leaves an empty object for each container. A quote within a string is escaped, so
        # these patterns cannot match within one.
        for depth in range(max(map(len, self.containers), default=0), 0, -1):
            names = "|".join(sorted({re.escape(path[-1]) for path in self.containers if len(path) == depth}))
            clean = f"regexp_replace({clean}, ',\"({names})\":\\{{\\}}', '', 'g')"
            clean = f"regexp_replace({clean}, '\"({names})\":\\{{\\}},?', '', 'g')"
        own = quote(UNMODELLED)
        paths = ["$", *("$" + "".join(f'."{name}"' for name in path) for path in self.containers)]
        keys = f"json_keys(clean, [{', '.join(map(literal, paths))}])"
        return f"""
            SELECT row, clean,
                CASE WHEN {own} IS NULL OR {own} = '{{}}' THEN clean
                     WHEN clean = '{{}}' THEN {own}
                     ELSE left(clean, -1) || ',' || substring({own}, 2) END AS {own},
                list_bool_or(list_transform(keys, lambda found: len(found) > list_unique(found)))
                    OR coalesce(list_has_any(keys[1], json_keys({own})), false) AS mixed
            FROM (SELECT *, {keys} AS keys FROM (SELECT row, {own}, {clean} AS clean FROM rests))"""

    @property
    def validates_unmodelled(self) -> bool:
        """Whether a rule or a computed column reads members without a column of their own."""
        expressions = [column.logic or "" for column in self.columns.values()]
        for contract in self.contracts:
            expressions += [rule.predicate for rule in contract.rules] + [contract.row_when or ""]
        return any(re.search(rf"\b{UNMODELLED}\b", expression) for expression in expressions)

    def _checked(self, fields: Collection[Column]) -> str:
        """What the delivered columns do not show: containers, values that are redacted later, odd numbers."""
        found = " + ".join(f"({_field('s', path)} IS NOT NULL)::UTINYINT" for path in self.containers)
        sent = [f"{_field('s', c.source)} IS NOT NULL AS {quote('sent_' + c.name)}" for c in self.guarded]
        exact = ["true"]
        for column in fields:
            if column.type in EXACT:
                value = f"{_field('s', column.source)}::VARCHAR"
                exact.append(f"({value} IS NULL OR {EXACT[column.type].format(value)})")
        for path in self.containers:
            # A value that is not an object is a struct of nulls for DuckDB, as an empty one is.
            inner = ", ".join(f"{_field('s', c.source)}::VARCHAR" for c in fields if c.source[: len(path)] == path)
            kind = f"json_type(line, {literal('$' + ''.join(f'.{quote(name)}' for name in path))})"
            empty = f"{_field('s', path)} IS NOT NULL AND coalesce({inner or 'NULL'}, NULL) IS NULL"
            exact.append(f"CASE WHEN {empty} THEN {kind} = 'OBJECT' ELSE true END")
        return ", ".join([f"{found or 0} AS containers", *sent, f"({' AND '.join(exact)}) AS exact_values"])

    @property
    def proofs(self) -> list[str]:
        """What `fast_fields` gives beside the fields, to be handed through by `validated`."""
        sent = [UNMODELLED, *(column.name for column in self.guarded)]
        return ["valid", "containers", "exact_values", *("sent_" + name for name in sent)]

    @property
    def validated_columns(self) -> list[str]:
        """The columns of an accepted event: its row, its values, and where it belongs."""
        values = [c.name for c in self.columns.values() if c.source or c.logic]
        flags = [IN + c.name for c in self.contracts]
        return ["row", *values, *flags, "redacted", "key_high", "key_low"]

    def validated(self, source: str, passed: Sequence[str]) -> str:
        """`validated_columns`, `reason`, `bad_time` and, as sent, `raw_<time>` for each row of `source`.

        Args:
            source: SQL that gives `row`, the fields, and `passed`.
            passed: columns of `source` that are handed through.
        """
        kept = ", ".join(["row", *map(quote, passed)])
        times = [c for c in self.fields if c.type in PATTERNS]
        typed = ", ".join(self._typed(column) for column in self.fields)
        raw_times = ", ".join(f"nullif({quote(c.name)}, '') AS {quote('raw_' + c.name)}" for c in times)
        bad_time = " ".join(
            f"WHEN {quote('raw_' + c.name)} IS NOT NULL AND {quote(c.name)} IS NULL THEN {literal(c.name)}"
            for c in times
        )
        computed = with_computed(self.columns.values(), "SELECT * FROM redacted")
        members = ", ".join(f"coalesce({self._member(c)}, false) AS {quote(IN + c.name)}" for c in self.contracts)
        reason = ", ".join(f"CASE WHEN {quote(IN + c.name)} THEN {reason_case(c)} END" for c in self.contracts)
        taken = " OR ".join(quote(IN + c.name) for c in self.contracts if c.kind is Kind.EVENTS)
        homeless = f"CASE WHEN NOT ({taken}) THEN 'no_dataset' END"
        key, high, low = key_of("event_id")
        names = ", ".join(quote(name) for name in self.validated_columns if not name.startswith("key_"))
        sent_times = ", ".join(quote("raw_" + c.name) for c in times)
        return f"""
            WITH typed AS (SELECT {kept}, {raw_times}, {typed} FROM ({source})),
            timed AS (SELECT *, CASE {bad_time} END AS bad_time FROM typed),
            redacted AS (SELECT * {self._redactions()} FROM timed),
            computed AS ({computed}),
            members AS (SELECT *, {members}, {key} AS key FROM computed),
            unplaced AS (SELECT *, {self._unplaced()} AS unplaced FROM members),
            placed AS (SELECT * REPLACE ({self._with_unplaced()}) FROM unplaced)
            SELECT {names}, {high} AS key_high, {low} AS key_low,
                   coalesce('unparseable_' || bad_time, {reason}, {homeless}) AS reason, bad_time,
                   {", ".join([*passed, sent_times])}
            FROM placed"""

    def _typed(self, column: Column) -> str:
        name = quote(column.name)
        if duckdb_type(column.type) == "VARCHAR":
            return name
        cast = f"try_cast({name} AS {duckdb_type(column.type)})"
        if column.type in PATTERNS:
            cast = f"CASE WHEN regexp_full_match({name}, {literal(PATTERNS[column.type])}) THEN {cast} END"
        return f"{cast} AS {name}"

    def _redactions(self) -> str:
        """Values that are not kept without consent are replaced, and rows in which that happened are marked."""
        if not self.guarded:
            return ", false AS redacted"
        replaced = [(quote(c.name), redacted_value(c)) for c in self.guarded]
        changed = " OR ".join(f"{name} IS DISTINCT FROM ({value})" for name, value in replaced)
        return f"REPLACE ({', '.join(f'{value} AS {name}' for name, value in replaced)}), ({changed}) AS redacted"

    def _unplaced(self) -> str:
        """SQL: the fields whose columns belong to datasets that the event gives no row of, as JSON but for braces."""
        homeless: dict[str, list[str]] = {}
        for column in self.fields:
            if condition := self._is_unplaced(column):
                homeless.setdefault(condition, []).append(column.name)
        fields = ", ".join(
            f"CASE WHEN {condition} AND {quote(name)} IS NOT NULL THEN {literal(json.dumps(name) + ':')} || "
            f"{quote(name) if self.columns[name] in self.raw else f'to_json({quote(name)})::VARCHAR'} END"
            for condition, names in homeless.items()
            for name in names
        )
        any_of = " OR ".join(
            f"({condition} AND ({' OR '.join(f'{quote(name)} IS NOT NULL' for name in names)}))"
            for condition, names in homeless.items()
        )
        return f"CASE WHEN {any_of} THEN concat_ws(',', {fields}) END" if fields else "NULL"

    def _with_unplaced(self) -> str:
        """SQL: what the row keeps as JSON, joined by its unplaced fields."""
        own = quote(UNMODELLED)
        outer = f"""',"' || repeat('$', 1 + contains({own}, '"{OUTER}"')::INTEGER) || '{OUTER[1:]}":{{' """
        return f"""
            CASE WHEN unplaced IS NULL THEN {own}
                 WHEN {own} IS NULL OR {own} = '{{}}' THEN '{{' || unplaced || '}}'
                 WHEN list_has_any(json_keys({own}), json_keys('{{' || unplaced || '}}'))
                 THEN left({own}, -1) || {outer} || unplaced || '}}}}'
                 ELSE left({own}, -1) || ',' || unplaced || '}}' END AS {own}"""

    def _is_unplaced(self, column: Column) -> str | None:
        """SQL: whether an event gives no row to put a value of the column in; None if it always does."""
        takers = [c for c in self.contracts if column.name in [other.name for other in c.columns]]
        whole = [c for c in self.contracts if c.kind is Kind.EVENTS]
        certain = any(c.row_from == column.source[0] and not c.row_when for c in takers)
        if certain or all(c in takers for c in whole):
            return None
        rows = " OR ".join(quote(IN + taker.name) for taker in takers)
        return f"NOT ({rows})"

    def _member(self, contract: Contract) -> str:
        """SQL: whether an event gives a row of this dataset."""
        conditions = [f"({contract.row_when})"] if contract.row_when else []
        if contract.row_from:
            carried = [quote(c.name) for c in contract.columns if c.source[:1] == (contract.row_from,)]
            conditions.append("(" + " OR ".join(f"{name} IS NOT NULL" for name in carried) + ")")
        return " AND ".join(conditions) or "true"


class EventSession:
    """A DuckDB session for the statements of an `EventSchema`; use one per thread."""

    def __init__(self, schema: EventSchema, first_day: date) -> None:
        self.schema = schema
        self._first_day = first_day
        # Made when it is needed: of the sessions of a short run some have nothing to do.
        self._made: duckdb.DuckDBPyConnection | None = None
        self._now: datetime | None = None

    def begin(self, now: datetime) -> None:
        """Set what rules may refer to; `now` is UTC."""
        self._now = now
        if self._made:
            set_variables(self._made, self._first_day, now)

    def query(self, statement: str, name: str, table: "pa.Table") -> "pa.Table":
        """The result of a statement that reads `table` by this name.

        Raises:
            Transient: memory or disk did not suffice.
            duckdb.Error: it fails on the rows.
            KeyboardInterrupt: Ctrl-C while it worked.
        """
        import duckdb

        used = self._connection()
        used.register(name, table)
        try:
            return used.sql(statement).to_arrow_table()
        except duckdb.OperationalError as error:
            raise Transient(
                f"Events cannot be validated now: {error}. Free memory or disk, and start again."
            ) from error
        except (duckdb.InternalError, duckdb.FatalException):
            # The session takes no other statement after such a one.
            self._made = None
            raise
        except RuntimeError as error:
            # DuckDB's error for a signal that came while it worked; it must not pass for a line's fault.
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from None
            raise
        finally:
            if used is self._made:
                used.unregister(name)
            else:
                used.close()

    def _connection(self) -> "duckdb.DuckDBPyConnection":
        if self._made is None:
            self._made = session(confined=True)
            if self._now:
                self.begin(self._now)
        return self._made


def _field(root: str, path: tuple[str, ...]) -> str:
    return ".".join([root, *map(quote, path)])
