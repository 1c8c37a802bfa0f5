"""What maintenance of tables asks of an engine: this process, or Spark."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from recsys_data.storage.integrity import names_corrupt_file

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# Files above this are left as they are.
LARGE_BYTES = 256 * 1024 * 1024


class Rewritten(NamedTuple):
    """Files of a table, and new ones with the same rows."""

    old: "list[DataFile]"
    new: "list[DataFile]"


class Engine(Protocol):
    """What reads many files, or many manifests, for maintenance."""

    def rewrite_days(self, table: "Table", days: Sequence[int], /) -> Rewritten:
        """Write the small files of some days (since 1970) again as few, synced but not part of the table yet."""
        ...

    def references(self, table: "Table", /) -> Iterator[str]:
        """Every file that the table's loaded metadata refers to, by any snapshot that it keeps."""
        ...


@names_corrupt_file
def small_files(table: "Table", days: Sequence[int]) -> dict[int, list["DataFile"]]:
    """The files of each of these days (since 1970) that are worth rewriting."""
    found: dict[int, list[DataFile]] = {day: [] for day in days}
    for task in table.scan().plan_files():
        if task.file.partition[0] in found and task.file.file_size_in_bytes < LARGE_BYTES:
            found[task.file.partition[0]].append(task.file)
    return found
