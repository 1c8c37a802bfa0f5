"""A platform whose sources are landing folders and SQLite databases, for tests of snapshots."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from recsys_data.contracts import Contract
from recsys_data.ingestion.batch.quarantine import SnapshotResult
from recsys_data.ingestion.batch.snapshot import take_snapshot
from recsys_data.settings import Settings
from recsys_data.sql import open_session
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.contract_files import load

Row = dict[str, Any]


@dataclass
class Batch:
    """A data folder with a lake, whose contracts are the built-in ones and `documents`."""

    folder: Path
    contracts: Mapping[str, Contract]
    place: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, *documents: Mapping[str, Any], **place: str) -> "Batch":
        return cls(folder, load(folder / "contracts", *documents), place)

    @property
    def settings(self) -> Settings:
        here = Settings(dir=str(self.folder / "data"), landing_rest_seconds=0)
        return msgspec.structs.replace(here, **self.place)

    @property
    def lake(self) -> Lake:
        """Opened anew, as another process would."""
        return open_lake(self.settings, self.contracts)

    def land(self, name: str, day: str, rows: list[Row] | str, file: str = "part.jsonl") -> Path:
        """Write a day's state into the landing folder, in place of what was there."""
        folder = self.settings.data_dir / "landing" / name / day
        folder.mkdir(parents=True, exist_ok=True)
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        path = folder / file
        path.write_text(text, "utf-8")
        return path

    def take(self, name: str, day: str, accept: bool = False) -> SnapshotResult:
        return take_snapshot(self.lake, self.settings, name, date.fromisoformat(day), accept)

    def rows(self, name: str, order: str = "ALL") -> list[Row]:
        """The rows of a dataset as they can be queried now."""
        table = self.lake.table(name)
        with open_session() as connection:
            found = connection.sql(f"SELECT * FROM ({relation(table, data_files(table))}) ORDER BY {order}")
            return found.to_arrow_table().to_pylist()

    def database(self, *statements: str) -> str:
        """Run statements in the SQLite database `shop.db`; its URL."""
        path = self.folder / "shop.db"
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return f"sqlite:///{path}"
