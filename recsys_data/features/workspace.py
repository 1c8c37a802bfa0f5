"""The temporary tables of one join."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


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

    def create(self, name: str, sql: str, *, append: bool = False, given: "pa.Table | None" = None) -> str:
        """Make a table, or `append` to it; the same one is made only once.

        Args:
            name: of the table.
            sql: of its rows.
            append: whether rows are added to a table that is there.
            given: what the SQL reads as `given`.

        Returns:
            Its name as SQL spells it.
        """
        if name in self._made and not append:
            return self.table(name)
        made = f"INSERT INTO {self.table(name)} {sql}"
        if name not in self._made:
            made = f"CREATE TEMP TABLE {self.table(name)} AS {sql}"
        if given is None:
            self.connection.execute(made)
        else:
            self.connection.from_arrow(given).query("given", made)
        self._made.add(name)
        return self.table(name)

    def drop(self, *names: str) -> None:
        for name in names:
            self.connection.execute(f"DROP TABLE {self.table(name)}")
            self._made.remove(name)

    def drop_all_but(self, name: str) -> None:
        self.drop(*(self._made - {name}))
