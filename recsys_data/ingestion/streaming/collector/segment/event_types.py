"""What each native event type must carry, found by asking the rules of the contract; it is listed nowhere else."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys_data.contracts.model import Contract
from recsys_data.contracts.rules import reason_case, session, set_variables
from recsys_data.contracts.types import duckdb_type
from recsys_data.sql import quote

# Every event of a message has these, whatever its type.
GIVEN = ("event_id", "type", "event_ts")
# A value of each logical type that the rules of a sound event accept.
SAMPLES = {"timestamp": "getvariable('now')", "string": "'x'", "boolean": "true"}


# Compared by identity, so that it is a key of caches.
@dataclass(frozen=True, slots=True, eq=False)
class EventTypes:
    """The native types of a contract, each with the columns without which its events are rejected.

    Attributes:
        required: by type; none of `custom`, which takes whatever fits no other.
    """

    required: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, contract: Contract) -> "EventTypes":
        """Ask the rules of the contract about an event of each type that lacks one column."""
        columns = {column.name: column for column in contract.columns if column.name != "type"}
        known = next((column.enum for column in contract.columns if column.name == "type"), ())
        given = ", ".join(
            f"CASE WHEN lacks IS DISTINCT FROM '{name}' THEN ({SAMPLES.get(column.type, '1')})"
            f"::{duckdb_type(column.type)} END AS {quote(name)}"
            for name, column in columns.items()
        )
        now = datetime.now(UTC)
        with session() as connection:
            set_variables(connection, now.date(), now)
            connection.execute(f"SET VARIABLE first_day = {SAMPLES['timestamp']}")
            rejected = connection.execute(
                f"""SELECT type, lacks FROM (SELECT type, lacks, {given}
                    FROM (SELECT unnest(?::VARCHAR[]) AS type), (SELECT unnest(?::VARCHAR[]) AS lacks))
                    WHERE {reason_case(contract)} IS NOT NULL""",
                [list(known), [name for name in columns if name not in GIVEN]],
            ).fetchall()
        required: defaultdict[str, set[str]] = defaultdict(set)
        for name, column in rejected:
            required[name].add(column)
        return cls({name: frozenset(required[name]) for name in known if name != "custom"})

    def fitting(self, name: str, native: Mapping[str, object]) -> str:
        """The type of an event with these columns: `name`, or `custom` if it lacks what that type needs."""
        needed = self.required.get(name)
        return name if needed is not None and needed <= native.keys() else "custom"
