"""Native events in a file, one JSON object a line -> the same lines, byte for byte and in file order.

They are not sorted: their order is the client's, and lines that are not events at all keep their place too.
Nothing is validated or repaired here; a line without an event id stays without one (ingestion says so), for an
id made up here would hide that the event cannot be distinguished from its repetition. Empty lines are left out, and
line ends do not belong to a line.
Run it alone: `recsys-data load events FILE`.
"""

from pathlib import Path

from recsys_data.errors import UserError
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.files import line_batches


def read(path: Path) -> Import:
    """Read to the end, so that a damaged file is refused before anything is loaded, and then once more.

    Raises:
        UserError: the file cannot be read to its end, or holds no line.
    """
    total = sum(map(len, line_batches(path)))
    if total == 0:
        raise UserError(f"{path} holds no lines. Expected one JSON object a line.")
    return Import(total, line_batches(path))
