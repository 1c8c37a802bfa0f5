"""Selecting dead letters, and removing some of them from their table.

Data flow: `DeadLetterFilter` -> the files with matching rows -> their log positions (`LogPositions`) -> the files
without them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys_data.contracts.model import Kind
from recsys_data.contracts.rules import session
from recsys_data.errors import Transient
from recsys_data.storage.commit import delete_files
from recsys_data.storage.ledger import Deletions
from recsys_data.storage.maintenance.compaction import rewrite
from recsys_data.storage.query import file_path, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# Table maintenance may rewrite a day while its dead letters are read.
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Criteria for dead letters; None matches all.

    Attributes:
        reason: why they were rejected.
        dataset: the dataset whose contract they break.
        since: rejected then or later; with a time zone, like `until`.
        until: rejected before then.
    """

    reason: str | None = None
    dataset: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> tuple[str, list[object]]:
        """The SQL condition, and its parameters."""
        given = [
            ("reason = ?", self.reason),
            ("dataset = ?", self.dataset),
            ("rejected_at >= ?", self.since),
            ("rejected_at < ?", self.until),
        ]
        used = [(condition, value) for condition, value in given if value is not None]
        return " AND ".join(condition for condition, _ in used) or "true", [value for _, value in used]


@dataclass(slots=True)
class LogPositions:
    """Positions in the log, by partition, which identify dead letters."""

    offsets: dict[int, list[npt.NDArray[np.int64]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(part) for parts in self.offsets.values() for part in parts)

    def add(self, partitions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> None:
        """Add positions; both of shape (n,)."""
        for partition in np.unique(partitions).tolist():
            self.offsets.setdefault(partition, []).append(offsets[partitions == partition])

    def others(self, rows: "pa.Table") -> "pa.Table":
        """The rows of other positions."""
        import pyarrow as pa

        partitions, offsets = rows["log_partition"].to_numpy(), rows["log_offset"].to_numpy()
        found = np.zeros(len(rows), bool)
        for partition, parts in self.offsets.items():
            found |= (partitions == partition) & np.isin(offsets, np.concatenate(parts))
        return rows.filter(pa.array(~found))


def holders(lake: Lake) -> list["Table"]:
    """The tables of dead letters that exist."""
    names = [name for name, contract in lake.contracts.items() if contract.kind is Kind.DEAD_LETTERS]
    return [lake.table(name) for name in names if lake.exists(name)]


def count(lake: Lake, criteria: DeadLetterFilter) -> dict[str, int]:
    """Matching dead letters by reason, most frequent first."""
    found: dict[str, int] = {}
    for table in holders(lake):
        files = [file_path(task.file) for task in table.scan().plan_files()]
        where, values = criteria.where()
        with session(parallel=True) as connection:
            rows = connection.execute(
                f"SELECT reason, count(*) FROM ({relation(table, files)}) WHERE {where} GROUP BY ALL", values
            ).fetchall()
        for reason, rows_of in rows:
            found[reason] = found.get(reason, 0) + rows_of
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def select(
    connection: "duckdb.DuckDBPyConnection",
    table: "Table",
    file: "DataFile",
    criteria: DeadLetterFilter,
    columns: list[str],
) -> "duckdb.DuckDBPyRelation":
    """Select columns (SQL) of the matching rows of a file."""
    where, values = criteria.where()
    source = relation(table, [file_path(file)])
    return connection.sql(f"SELECT {', '.join(columns)} FROM ({source}) WHERE {where}", params=values)


def remove(
    table: "Table",
    criteria: DeadLetterFilter,
    choose: Callable[["DataFile"], LogPositions],
    counted: Callable[[Deletions, int], Deletions],
) -> Iterator[int]:
    """Remove dead letters from a table, with a commit for each file; yields the number of rows after each.

    Args:
        table: of dead letters.
        criteria: files without a matching row are left as they are.
        choose: the positions to remove from a file. It is asked again if others have rewritten the file meanwhile.
        counted: the table's counts after so many rows were removed.

    Raises:
        Transient: others kept rewriting the table; what was yielded before is removed.
    """
    done: set[str] = set()
    for _ in range(ROUNDS):
        moved = False
        for file in _files(table.refresh(), criteria):
            if file.file_path in done:
                continue
            positions = choose(file)
            removed = len(positions)
            if not removed:
                done.add(file.file_path)
                continue
            left = rewrite(table, file.partition[0], [file], positions.others)
            if delete_files(table, [file], [left] if left else [], lambda stored, n=removed: counted(stored, n)):
                done.update({file.file_path, *([left.file_path] if left else [])})
                yield removed
            else:
                moved = True
        if not moved:
            return
    raise Transient(f"{'.'.join(table.name())} was rewritten by others {ROUNDS} times. Try again later.")


def _files(table: "Table", criteria: DeadLetterFilter) -> list["DataFile"]:
    """The files with matching rows."""
    files = {file_path(task.file): task.file for task in table.scan().plan_files()}
    where, values = criteria.where()
    with session(parallel=True) as connection:
        rows = connection.execute(
            f'SELECT DISTINCT "#file" FROM ({relation(table, list(files), "#file")}) WHERE {where}', values
        ).fetchall()
    return [files[path] for (path,) in sorted(rows)]


def gather(reader: "pa.RecordBatchReader") -> LogPositions:
    """The positions in a reader of `log_partition` and `log_offset`."""
    positions = LogPositions()
    for batch in reader:
        positions.add(batch["log_partition"].to_numpy(), batch["log_offset"].to_numpy())
    return positions
