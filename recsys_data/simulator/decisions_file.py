"""A Parquet file of every recommended list with its whole shortlist: the truth to evaluate other policies against.

Data flow: visits -> `ranking_truth.table` -> one row group a block of visits. It appears whole when all is written.
"""

import os
from pathlib import Path
from types import TracebackType

import pyarrow.parquet as pq

from recsys_data.durable import sync_file
from recsys_data.simulator.ranking_truth import table
from recsys_data.simulator.traffic.behaviour import Visit
from recsys_data.simulator.world import World


class DecisionsFile:
    """Use it in a `with` block; without a visit there is no file."""

    def __init__(self, path: Path, world: World) -> None:
        self.path, self.world = path, world
        self._hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: pq.ParquetWriter | None = None

    def add(self, visit: Visit) -> None:
        """Write the lists of `visit`."""
        rows = table(self.world, visit)
        self._writer = self._writer or pq.ParquetWriter(self._hidden, rows.schema)
        self._writer.write_table(rows)

    def __enter__(self) -> "DecisionsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._writer:
            return
        self._writer.close()
        if error:
            self._hidden.unlink()
            return
        sync_file(self._hidden)
        self._hidden.replace(self.path)
        sync_file(self.path.absolute().parent)
