"""States of a data set -> landing folders, from which the batch side takes the state of a day.

Data flow: `Import.states` -> `land` -> `landing/<dataset>/<day>/<source>.jsonl`. Each file is written whole or
not at all; landing a state again gives the same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from recsys_data.sources.files.day_folders import whole_file


@dataclass(frozen=True, slots=True)
class State:
    """All rows of a snapshot dataset as they were known at the end of a day.

    Attributes:
        dataset: the snapshot dataset, e.g. `item_catalog`.
        day: the UTC day.
        source: what the file is called.
        lines: hands out the rows, one JSON object each, in batches of lines without their newlines.
    """

    dataset: str
    day: date
    source: str
    lines: Callable[[], Iterator[list[bytes]]]


def land(landing: Path, state: State) -> int:
    """Write the file of a state below `landing`; returns how many rows it has."""
    rows = 0
    with whole_file(landing / state.dataset / state.day.isoformat() / f"{state.source}.jsonl") as file:
        for lines in state.lines():
            file.write(b"\n".join(lines) + b"\n")
            rows += len(lines)
    return rows
