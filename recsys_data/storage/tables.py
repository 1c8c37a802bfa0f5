"""Contracts -> Iceberg tables: created when first needed, evolved when a contract grew, refused otherwise.

Catalog and warehouse are those of the settings. Run alone: `recsys-data contract check`.
"""

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.contracts.model import Contract
from recsys_data.contracts.types import arrow_schema
from recsys_data.durable import make_folder
from recsys_data.errors import ContractError, RecsysDataError, Transient, UserError
from recsys_data.redaction import redacted, redacted_url
from recsys_data.settings import Settings
from recsys_data.sql import limit_threads, read_through
from recsys_data.storage.availability import unavailable
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.iceberg.catalog import NAMESPACE, commit_failures, metadata_location, open_catalog
from recsys_data.storage.iceberg.pyiceberg_patches import file_io_of, share_frozen_metadata
from recsys_data.storage.integrity import corrupt_metadata

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.update.schema import UpdateSchema
    from pyiceberg.types import NestedField

    from recsys_data.storage.iceberg.file_io import DurableFileIO

CONTRACT_VERSION = "recsys_data.contract-version"
LOADS = 5

# Why each is set is in docs/decisions/0002-iceberg-commits.md.
TABLE_PROPERTIES = {
    # The library's retries rebuild a commit on the new head, which breaks compare-and-set; ours re-check.
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    # About 400 data files: merging them takes a tenth of a second, of which many commits have one.
    "commit.manifest.target-size-bytes": "131072",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "write.parquet.compression-codec": "zstd",
}


class Lake:
    """The tables of all datasets, opened on demand.

    Attributes:
        warehouse: where their files are: a folder, or a URL.
        folder: what this machine notes of them.
        io: access to the files of the warehouse.
        settings: those that it was opened with.
    """

    def __init__(
        self,
        catalog: "Catalog",
        contracts: Mapping[str, Contract],
        warehouse: str,
        folder: Path,
        settings: Settings | None = None,
    ) -> None:
        self.catalog = catalog
        self.contracts = contracts
        self.warehouse = warehouse
        self.folder = folder
        self.settings = settings
        self.io: DurableFileIO = file_io_of(catalog, warehouse)
        self._tables: dict[str, Table] = {}

    def table(self, name: str) -> "Table":
        """The dataset's table as of now; created, or brought up to its contract, when first asked for.

        Raises:
            ContractError: the contract changed in a way that the stored table cannot follow.
            Permanent: its metadata file is damaged.
        """
        for _ in range(LOADS):
            try:
                return self._load(name)
            except Exception as error:
                if isinstance(error, (RecsysDataError, *commit_failures())):
                    raise
                if away := unavailable(error):
                    raise away from error
                corruption = corrupt_metadata(self.catalog, (NAMESPACE, name), error)
                if corruption or not isinstance(error, FileNotFoundError):
                    raise corruption or error from error
                # Ten commits were made since the catalog named this file, which the last of them removed.
        raise Transient(f"Table {name} changes faster than it can be opened. Try again.")

    def _load(self, name: str) -> "Table":
        if known := self._tables.get(name):
            # What has not changed need not be read again, which takes ten times as long.
            same = metadata_location(self.catalog, (NAMESPACE, name)) == known.metadata_location
            return known if same else known.refresh()
        contract = self.contracts[name]
        table = self._open(contract)
        if table.properties.get(CONTRACT_VERSION) != _fingerprint(contract):
            table = _evolve(table, contract)
        self._tables[name] = table
        return table

    def exists(self, name: str) -> bool:
        """Whether the dataset's table has been created."""
        return metadata_location(self.catalog, (NAMESPACE, name)) is not None

    def stored(self, name: str) -> "Table | None":
        """The table as it is stored, also of a dataset that has no contract any more; None if there is none."""
        return self.catalog.load_table((NAMESPACE, name)) if self.exists(name) else None

    def _open(self, contract: Contract) -> "Table":
        from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError

        identifier = (NAMESPACE, contract.name)
        for _ in range(2):
            with contextlib.suppress(NoSuchTableError):
                return self.catalog.load_table(identifier)
            # Two processes may start at once: the loser of the race loads what the winner made.
            with contextlib.suppress(TableAlreadyExistsError):
                schema = iceberg_schema(contract)
                return self.catalog.create_table(
                    identifier,
                    schema=schema,
                    location=f"{self.warehouse}/{NAMESPACE}/{contract.name}",
                    partition_spec=_partitions(schema, contract),
                    properties={**TABLE_PROPERTIES, CONTRACT_VERSION: _fingerprint(contract)},
                )
        raise Transient(f"Table {contract.name} is being created and dropped at once by others. Try again.")


def open_lake(settings: Settings, contracts: Mapping[str, Contract]) -> Lake:
    """Open the lake of these settings, creating its catalog if there is none yet.

    Raises:
        UserError: the lake folder cannot be used.
    """
    from sqlalchemy.exc import OperationalError

    share_frozen_metadata()
    limit_threads(settings.duckdb_threads)
    folder = settings.lake_dir
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(
            f"The lake folder {folder} cannot be used: {error.strerror}. Set RECSYS_DATA_DIR to a folder that can."
        ) from None
    if settings.catalog:
        catalog = _open_remote(settings)
    else:
        try:
            catalog = open_catalog(settings)
        except OperationalError as error:
            raise UserError(
                f"The catalog {settings.catalog_file} cannot be opened: {error.orig}. "
                "Check that the folder is writable and its disk not full."
            ) from None
    lake = Lake(catalog, contracts, settings.warehouse_location, folder, settings)
    if settings.warehouse:
        from recsys_data.storage.iceberg.duckdb_files import WarehouseFiles

        read_through(WarehouseFiles(lake.io))
    return lake


def _open_remote(settings: Settings) -> "Catalog":
    """A catalog that a URL names.

    Raises:
        UserError: it refuses what the URL says.
        Transient: it cannot be reached.
    """
    from pyiceberg.exceptions import RESTError
    from sqlalchemy.exc import ArgumentError, ProgrammingError

    place = redacted_url(settings.catalog)

    def said(error: Exception) -> str:
        text = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        return redacted(text[0], settings.secrets)

    try:
        return open_catalog(settings)
    except (ArgumentError, ProgrammingError) as error:
        raise UserError(f"The catalog {place} cannot be used: {said(error)}. Correct RECSYS_DATA_CATALOG.") from None
    except (RESTError, *commit_failures()) as error:
        raise Transient(
            f"The catalog {place} cannot be reached or used: {said(error)}. Check that it runs, RECSYS_DATA_CATALOG "
            "and its login."
        ) from None


def iceberg_schema(contract: Contract) -> "Schema":
    """The Iceberg schema of a dataset, with descriptions, fields numbered from 1."""
    import pyarrow as pa
    from pyiceberg.io.pyarrow import pyarrow_to_schema

    # Elements of lists and maps are fields too, numbered after the columns.
    inner = itertools.count(len(contract.columns) + 1)

    def numbered(field: pa.Field, number: int, description: str = "") -> pa.Field:
        metadata = {b"PARQUET:field_id": str(number).encode(), b"doc": description.encode()}
        return field.with_type(nested(field.type)).with_metadata(metadata)

    def nested(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(numbered(kind.value_field.with_name("element"), next(inner)))
        if pa.types.is_map(kind):
            return pa.map_(numbered(kind.key_field, next(inner)), numbered(kind.item_field, next(inner)))
        return kind

    columns = zip(arrow_schema(contract), contract.columns, strict=True)
    return pyarrow_to_schema(
        pa.schema([numbered(field, n, column.description) for n, (field, column) in enumerate(columns, start=1)])
    )


def _partitions(schema: "Schema", contract: Contract) -> "PartitionSpec":
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.transforms import DayTransform, IdentityTransform

    column = contract.event_time
    source = schema.find_field(column.name)
    if column.type == "boolean":
        return PartitionSpec(PartitionField(source.field_id, 1000, IdentityTransform(), column.name), spec_id=0)
    return PartitionSpec(PartitionField(source.field_id, 1000, DayTransform(), f"{column.name}_day"), spec_id=0)


def event_time(table: "Table") -> str:
    """The column whose UTC day, or value, is the table's partition."""
    return table.schema().find_column_name(table.spec().fields[0].source_id) or ""


def _fingerprint(contract: Contract) -> str:
    """What a table must follow: the version, and the columns with their types."""
    columns = ",".join(
        f"{c.name}:{c.type}{'!' if c.required or c.key else ''}{'/' if c.partitioned else ''}" for c in contract.columns
    )
    return f"{contract.version} {columns}"


class SchemaChanges(NamedTuple):
    """What it takes for a stored table to follow its contract.

    Attributes:
        removed: columns that are no longer declared, of a dataset that is computed again without them.
        added: new optional columns.
        relaxed: columns that may be empty from now on.
        refused: differences that no stored table can follow, in words.
    """

    removed: list[str]
    added: "list[NestedField]"
    relaxed: list[str]
    refused: list[str]

    def apply(self, update: "UpdateSchema") -> None:
        """Make the changes that a table can follow."""
        for name in self.removed:
            update.delete_column(name)
        for field in self.added:
            update.add_column(field.name, field.field_type, field.doc)
        for name in self.relaxed:
            update.make_column_optional(name)


def schema_changes(table: "Table", contract: Contract) -> SchemaChanges:
    """Compare the loaded table with its contract."""
    stored = {field.name: field for field in table.schema().fields}
    wanted = {field.name: field for field in iceberg_schema(contract).fields}
    changes = SchemaChanges([], [], [], [])
    time = event_time(table)
    if time != contract.event_time.name:
        changes.refused.append(
            f"what is stored is partitioned by {time}, and the contract now asks for {contract.event_time.name}"
        )
    for name, field in stored.items():
        new = wanted.get(name)
        if contract.is_computed and (new is None or str(new.field_type) != str(field.field_type)):
            changes.removed.append(name)
            changes.added.extend([new] if new else [])
        elif new is None:
            changes.refused.append(f"column {name} is stored but no longer in the contract")
        # As text, because the ids of what lists and maps hold move when a column is added.
        elif str(new.field_type) != str(field.field_type):
            kinds = f"stored as {field.field_type}, and the contract now asks for {new.field_type}"
            changes.refused.append(f"column {name} is {kinds}")
        elif new.required and not field.required:
            changes.refused.append(f"column {name} may be empty in what is stored, and the contract now requires it")
        elif field.required and not new.required:
            changes.relaxed.append(name)
    for name, new in wanted.items():
        if name not in stored and new.required:
            changes.refused.append(f"new column {name} is required, and what is stored has no value for it")
        elif name not in stored:
            changes.added.append(new)
    return changes


def _evolve(table: "Table", contract: Contract) -> "Table":
    """Let a table follow its contract; refuse what it cannot follow.

    Raises:
        ContractError: the contract changed in another way than by optional columns.
        Transient: the catalog cannot be written now.
    """
    fingerprint = _fingerprint(contract)

    def evolve(table: "Table") -> Change | bool:
        if table.properties.get(CONTRACT_VERSION) == fingerprint:
            return True
        changes = schema_changes(table, contract)
        if changes.refused:
            raise ContractError(
                f"{contract.path}: {changes.refused[0]}. A stored dataset takes new optional columns only. Undo the "
                "change, or give the changed dataset a new name. Is RECSYS_DATA_CONTRACTS set as in other processes?"
            )
        return Change(properties={CONTRACT_VERSION: fingerprint}, schema=changes.apply, compared=False)

    compare_and_set(table, evolve)
    return table
