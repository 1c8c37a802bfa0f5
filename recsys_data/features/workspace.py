"""The temporary tables of one join."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb


@dataclass
class Workspace:
    """Temporary tables of a session under a prefix of their own, which live as long as the session.

    Attributes:
        connection: the session.
        prefix: of their names.
    """

    connection: "duckdb.DuckDBPyConnection"
    prefix: str
    _made: set[str] = field(default_factory=set)

    def table(self, name: str) -> str:
        """The name of a table as SQL spells it."""
        return quote(f"{self.prefix} {name}")

    def create(self, name: str, sql: str, *, append: bool = False) -> str:
        """Make a table, or `append` to it; the same one is made only once. Returns its name as SQL spells it."""
        if name not in self._made:
            self.connection.execute(f"CREATE TEMP TABLE {self.table(name)} AS {sql}")
        elif append:
            self.connection.execute(f"INSERT INTO {self.table(name)} {sql}")
        self._made.add(name)
        return self.table(name)

    def drop(self, *names: str) -> None:
        for name in names:
            self.connection.execute(f"DROP TABLE {self.table(name)}")
            self._made.remove(name)
