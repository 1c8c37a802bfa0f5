"""What contracts of snapshot datasets say beyond columns and rules: servers, schedule, references."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from recsys_data.contracts.odcs import custom_properties
from recsys_data.errors import ContractError

LANDING = "{data_dir}/landing/%s/{day}/*"
SERVER_OPTIONS = ("table", "query", "columns", "addsRows")
MIDNIGHT = "0 0 * * *"


class S3Keys(NamedTuple):
    """A login to S3."""

    access_key: str
    secret_key: str
    token: str | None


@dataclass(frozen=True, slots=True)
class S3Access:
    """How S3 is reached, where that is not left to what PyArrow finds in the environment.

    Attributes:
        region: of the buckets; None: that of AWS_REGION, or where the bucket is.
        attempts: how often a request is made at most.
        keys: gives the login of now, renewed when it has to be; None, here or as the login: as the environment says.
    """

    region: str | None = None
    attempts: int = 3
    keys: Callable[[], S3Keys | None] | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where rows of a snapshot dataset come from.

    Attributes:
        location: SQLAlchemy URL, path, pattern of paths or `s3://` URL; may hold `{day}`, `{data_dir}` and
            `${VARIABLE}` of the environment, whose value is never shown.
        table: of a database: a table or view, with its schema if need be.
        query: of a database, in place of a table: a SELECT statement.
        format: of files: csv, tsv (quotes are characters), jsonl or parquet; recognised by their suffix if None.
        columns: column of the contract -> its name here (in JSON a dotted path), where they differ.
        endpoint: of `s3://` locations that are not Amazon's.
        adds_rows: it adds rows too; all but the first server only add columns otherwise.
        s3: how `s3://` locations are reached; no part of the contract.
    """

    name: str
    location: str
    table: str | None = None
    query: str | None = None
    format: str | None = None
    delimiter: str = ","
    columns: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    adds_rows: bool = False
    s3: S3Access = field(default=S3Access(), repr=False, compare=False)

    @property
    def is_database(self) -> bool:
        """Whether it is a database; all else is files."""
        return bool(self.table or self.query) or is_url_of_database(self.location)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the day's snapshot is taken (cron) and by when it has to be there ("HH:MM"), both in `timezone`."""

    cron: str
    deadline: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A column whose values are keys of another dataset, but for at most a share `max_unknown` of the rows."""

    column: str
    dataset: str
    key: str
    max_unknown: float


def servers(path: Path, name: str, items: Sequence[Mapping[str, Any]]) -> tuple[Server, ...]:
    """The contract's servers; without any, the landing folder of the dataset.

    Raises:
        ContractError: a server says nothing of where it is, or something that is not understood.
    """
    found = [_server(path, item) for item in items]
    for server in found:
        if [other.name for other in found].count(server.name) > 1:
            raise ContractError(f"{path}: servers: {server.name} is declared more than once. Name each otherwise.")
    return tuple(found) or (Server("landing", LANDING % name),)


def _server(path: Path, item: Mapping[str, Any]) -> Server:
    name, extra = item["server"], custom_properties(item)
    location = item.get("location") or item.get("path")
    if not location:
        raise ContractError(
            f"{path}: servers: {name} (type {item.get('type')}) has neither location nor path. Say where it is: a "
            "SQLAlchemy URL or an s3:// URL as location (type custom or s3), or files as path (type local)."
        )
    unknown = set(extra) - set(SERVER_OPTIONS)
    if unknown:
        raise ContractError(
            f"{path}: servers: {name} has {', '.join(sorted(unknown))} in its customProperties; "
            f"expected {', '.join(SERVER_OPTIONS)}."
        )
    given = [option for option in ("table", "query") if extra.get(option)]
    if len(given) > 1 or (is_url_of_database(str(location)) and not given):
        raise ContractError(f"{path}: servers: {name} is a database. Give it a table or a query, and not both.")
    columns = extra.get("columns", {})
    if not isinstance(columns, Mapping):
        raise ContractError(f"{path}: servers: {name}: columns maps columns of the contract to names of the source.")
    return Server(
        name=name,
        location=str(location),
        table=extra.get("table"),
        query=extra.get("query"),
        format=None if item.get("format") == "auto" else item.get("format"),
        delimiter=item.get("delimiter", ","),
        columns={str(key): str(value) for key, value in columns.items()},
        endpoint=item.get("endpointUrl"),
        adds_rows=bool(extra.get("addsRows", False)),
    )


def is_url_of_database(location: str) -> bool:
    """Whether a location shows that it is a SQLAlchemy URL; one that is a variable as a whole shows nothing."""
    scheme = location.partition("://")[0] if "://" in location else ""
    return bool(scheme) and scheme not in ("file", "s3")


def schedule(path: Path, document: Mapping[str, Any]) -> Schedule:
    """When snapshots are taken and due; by default at midnight UTC, due six hours later.

    Raises:
        ContractError: a cron expression of other than five fields, a time that is none, or an unknown time zone.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    items = {item["property"]: item for item in document.get("slaProperties", [])}
    cron = str(items.get("frequency", {}).get("schedule", MIDNIGHT))
    deadline = str(items.get("timeOfAvailability", {}).get("value", "06:00"))
    zone = str(custom_properties(document).get("timezone", "UTC"))
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", deadline):
        raise ContractError(f"{path}: slaProperties: timeOfAvailability is {deadline!r}; expected HH:MM, e.g. 06:30.")
    if len(cron.split()) != 5:
        raise ContractError(
            f"{path}: slaProperties: frequency has the schedule {cron!r}; expected a cron expression of five fields, "
            "e.g. 30 4 * * *."
        )
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ContractError(
            f"{path}: customProperties: timezone {zone!r} is unknown; expected e.g. Europe/Berlin."
        ) from None
    return Schedule(cron, deadline, zone)


def references(path: Path, properties: Sequence[Mapping[str, Any]]) -> tuple[Reference, ...]:
    """Columns that hold keys of other datasets, as the standard's relationships of a property state them.

    Raises:
        ContractError: the target is not `dataset.column`, or its share is none.
    """
    found = []
    for item in properties:
        for relationship in item.get("relationships", []):
            target = relationship["to"]
            dataset, _, key = str(target).rpartition(".")
            most = custom_properties(relationship).get("maxShareUnknown", 0)
            if not dataset or not isinstance(most, int | float) or not 0 <= most <= 1:
                raise ContractError(
                    f"{path}: column {item['name']}: relationship to {target}; expected dataset.column, with "
                    "maxShareUnknown (customProperties) from 0 to 1."
                )
            found.append(Reference(item["name"], dataset, key, float(most)))
    return tuple(found)


def precedence(path: Path, column: str, names: Any) -> tuple[str, ...]:
    """The servers whose value of a column counts, best first."""
    if not isinstance(names, list):
        raise ContractError(f"{path}: column {column}: `from` is a list of servers, best first.")
    return tuple(map(str, names))
