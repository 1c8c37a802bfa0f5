"""Settings: the only reader of environment variables.

Each field is set by `RECSYS_DATA_<FIELD>`; `.env.example` of a deployment is this class. Secrets (write keys)
come from here and are never printed: their `repr` is masked.
"""

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from recsys_data.errors import UserError
from recsys_data.redaction import redacted_url, secrets_of

PREFIX = "RECSYS_DATA_"

Positive = Annotated[int, msgspec.Meta(gt=0)]
Url = Annotated[str, msgspec.Meta(pattern="^(https?://.+)?$")]
# The engine of one machine.
DUCKDB = "duckdb"
# What must not reach a log line, not even in a message about its form.
HIDDEN = ("write_keys", "signing_secrets", "alert_url")
# URLs whose password must not reach a log line.
HAVE_LOGIN = ("event_log", "online_store", "warehouse", "catalog")


def variable(name: str) -> str | None:
    """A variable of the environment that is not a setting: a contract or an outer service names it."""
    return os.environ.get(name)


def environment() -> dict[str, str]:
    """A copy of the whole environment, for child processes."""
    return dict(os.environ)


class Secrets(tuple[str, ...]):
    """Keys that must not reach a log line: prints as a count."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} hidden>"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs between a laptop and a deployment.

    Attributes:
        dir: the folder that holds all state (event log, lake, Dagster's own storage).
        event_log: URL of the event log (`kafka://HOST:9092/TOPIC`); `embedded` keeps it below `dir`.
        online_store: URL of the online store (`redis://`, `valkey://`, `dynamodb://`); `embedded` keeps it below `dir`.
        engine: what computes on many rows: `duckdb` in this process, or Apache Spark: `local[N]`, `spark://HOST:7077`,
            `k8s://URL`, `yarn`, or `sc://HOST:15002` for Spark Connect.
        spark_jars: the folder of the jars that Spark needs for the lake; empty: Spark fetches them from Maven Central.
        log_partitions: number of partitions of a new log; to the embedded one as many processes write at once.
        warehouse: where the files of the lake are, `s3://BUCKET/PREFIX`; empty: below `dir`.
        catalog: URL of the lake's catalog (`postgresql://`, `glue://REGION`, `https://` of an Iceberg REST catalog);
            empty: a SQLite database below `dir`.
        consume_share: `I/N`: this consumer reads the log partitions whose number is I - 1 modulo N, and other ones,
            on other machines, the rest; by default all.
        segment_bytes: size at which the embedded log starts a new segment file.
        log_retention_hours: how long segments that every table has consumed are kept.
        landing_rest_seconds: how long the files of a snapshot must not have changed before they are read; younger ones
            are waited for, unless a marker (`_SUCCESS`) says that they are whole.
        first_day: first event day that is accepted (UTC). Dagster's partitions begin with it if it is set, otherwise
            with the month of the oldest data.
        max_event_bytes: longest log line that is accepted; the collector adds up to 4 KiB to the 32 KiB of
            the Segment specification.
        max_request_bytes: largest request body, after decompression.
        write_keys: keys that clients of collector and serving must present; none means loopback only.
        signing_secrets: `KEY:SECRET`, separated by commas: the secrets of write keys that clients of Amazon Personalize
            use as access keys. With some, requests of such clients must be signed with one of them.
        ui_hosts: names (`name` or `name:port`, separated by commas) under which a proxy or a port forward serves the
            Dagster UI; addresses that it listens on need no name.
        contracts: a folder of further contracts; one replaces the built-in contract of its name.
        drain_seconds: how long one Dagster run consumes before a standby takes over.
        idle_seconds: how long a consumer waits for new events before it ends.
        alert_url: where alerts are posted, http or https; none: they are only logged. Anyone who knows it may write
            there, so it is treated as a secret.
        alert_format: what is posted, `json` or a message for `slack`.
        duckdb_threads: threads of a session that reads many rows; 0: the processors of the process, at most four.
        history_memory_mb: what making the history of a snapshot dataset may hold in memory before it spills to disk.
        log_format: of what commands and runs log: `text`, or `json`, one object a line.
        log_level: the least level that is logged; `debug` also names the events that are refused.
    """

    dir: Annotated[str, msgspec.Meta(min_length=1)] = "data"
    event_log: str = "embedded"
    online_store: str = "embedded"
    warehouse: Annotated[str, msgspec.Meta(pattern=r"^(s3://[a-z0-9][a-z0-9.-]+(/[^?#\s]*)?)?$")] = ""
    catalog: Annotated[str, msgspec.Meta(pattern="^((postgresql|glue|https?)://.+)?$")] = ""
    engine: Annotated[str, msgspec.Meta(pattern=r"^(duckdb|yarn|local(\[[0-9*]+\])?|(spark|k8s|sc)://.+)$")] = DUCKDB
    spark_jars: str = ""
    log_partitions: Positive = 4
    consume_share: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d{0,3}/[1-9]\d{0,3}$")] = "1/1"
    segment_bytes: Positive = 128 * 1024 * 1024
    log_retention_hours: Annotated[int, msgspec.Meta(ge=0)] = 168
    landing_rest_seconds: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    first_day: date = date(1995, 1, 1)
    max_event_bytes: Positive = 36 * 1024
    max_request_bytes: Positive = 1024 * 1024
    write_keys: str = ""
    signing_secrets: Annotated[str, msgspec.Meta(pattern="^([^:,]+:[^:,]+(,|$))*$")] = ""
    ui_hosts: str = ""
    contracts: str = ""
    drain_seconds: Positive = 600
    idle_seconds: Positive = 30
    alert_url: Url = ""
    alert_format: Literal["json", "slack"] = "json"
    duckdb_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    history_memory_mb: Positive = 1000
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in HIDDEN}
        shown |= {name: redacted_url(shown[name]) for name in HAVE_LOGIN}
        url = Secrets([self.alert_url] if self.alert_url else [])
        secrets = Secrets(self.secrets_of_keys)
        return f"Settings({shown}, write_keys={self.keys!r}, signing_secrets={secrets!r}, alert_url={url!r})"

    @property
    def data_dir(self) -> Path:
        """The state folder as an absolute path."""
        return Path(self.dir).expanduser().absolute()

    @property
    def contract_dirs(self) -> tuple[Path, ...]:
        """Folders of contracts beside the package's own."""
        return (Path(self.contracts).expanduser(),) if self.contracts else ()

    # The layout of the state folder. Nothing else knows the names of its folders.

    @property
    def log_dir(self) -> Path:
        """Segments of the embedded event log."""
        return self.data_dir / "log"

    @property
    def lake_dir(self) -> Path:
        """Catalog and data files of the lake, unless settings name other places; notes and locks in any case."""
        return self.data_dir / "lake"

    @property
    def warehouse_location(self) -> str:
        """Where the files of the lake are: a folder, or a URL without a slash at its end."""
        return self.warehouse.rstrip("/") or str(self.lake_dir)

    @property
    def warehouse_url(self) -> str:
        """The same as a URL in any case."""
        return self.warehouse.rstrip("/") or self.lake_dir.as_uri()

    @property
    def catalog_file(self) -> Path:
        """The SQLite database of the lake's catalog."""
        return self.lake_dir / "catalog.db"

    @property
    def online_dir(self) -> Path:
        """The embedded online store, which is rebuilt from the lake where it is missing."""
        return self.data_dir / "online"

    @property
    def landing_dir(self) -> Path:
        """Where sources deliver snapshots: `DATASET/DAY/FILE`."""
        return self.data_dir / "landing"

    def consumes(self, partition: int) -> bool:
        """Whether a log partition is one of `consume_share`."""
        part, parts = map(int, self.consume_share.split("/"))
        return partition % parts == part - 1

    @property
    def consumes_all(self) -> bool:
        """Whether no partition is left to other consumers."""
        return self.consume_share == "1/1"

    @property
    def dedup_index_dir(self) -> Path:
        """The saved deduplication index, which is built from the lake where it is missing."""
        return self.data_dir / "ingest" / self.of_share("seen")

    @property
    def staging_dir(self) -> Path:
        """What a snapshot or a history needs on the disk while it is made."""
        return self.data_dir / "ingest" / "staging"

    @property
    def quarantine_dir(self) -> Path:
        """Snapshots on hold: `DATASET/DAY`."""
        return self.data_dir / "ingest" / "held"

    @property
    def pushed_dir(self) -> Path:
        """Rows of snapshot datasets that clients pushed one by one."""
        return self.data_dir / "ingest" / "pushed"

    @property
    def runs_dir(self) -> Path:
        """Lock files of the Dagster runs that are alive."""
        return self.data_dir / "ingest" / "runs"

    @property
    def first_day_file(self) -> Path:
        """The oldest day of data that is known, with whose month Dagster's partitions begin."""
        return self.data_dir / "ingest" / "first_day"

    def lock_path(self, name: str) -> Path:
        """The lock file of a kind of ingestion, e.g. of a snapshot dataset."""
        return self.data_dir / "ingest" / f"{name}.lock"

    def of_share(self, name: str) -> str:
        """A name that consumers of other shares do not use."""
        return name if self.consumes_all else f"{name}-{self.consume_share.replace('/', '-of-')}"

    @property
    def dagster_dir(self) -> Path:
        """Dagster's own storage, unless `DAGSTER_HOME` names another."""
        return self.data_dir / "dagster"

    @property
    def process_logs_dir(self) -> Path:
        """What the processes of `recsys-data up` log."""
        return self.data_dir / "logs"

    @property
    def up_lock(self) -> Path:
        """Held by `recsys-data up`."""
        return self.data_dir / "up.lock"

    @property
    def ui_token_file(self) -> Path:
        """The token that opens the Dagster UI of `recsys-data up`."""
        return self.data_dir / "ui-token"

    @property
    def demo_dir(self) -> Path:
        """Database, exports and contracts of the demo's shop."""
        return self.data_dir / "demo"

    @property
    def training_dir(self) -> Path:
        """Training sets and models."""
        return self.data_dir / "training"

    @property
    def training_parts(self) -> tuple[Path, ...]:
        """What of it is not only needed while something runs: versions of training sets, files of models."""
        return self.training_dir / "sets", self.training_dir / "models"

    @property
    def restoring_dir(self) -> Path:
        """What `recsys-data restore` has not put in its place yet."""
        return self.data_dir / ".restoring"

    @property
    def keys(self) -> Secrets:
        """The write keys, one by one."""
        return Secrets(key for key in (part.strip() for part in self.write_keys.split(",")) if key)

    @property
    def secrets(self) -> Secrets:
        """Everything in the settings that must not reach a log line."""
        in_urls = (secret for name in HAVE_LOGIN for secret in secrets_of(getattr(self, name)))
        return Secrets([*self.keys, *self.secrets_of_keys.values(), *filter(None, (self.alert_url,)), *in_urls])

    @property
    def secrets_of_keys(self) -> dict[str, str]:
        """The secrets of `signing_secrets`, by key."""
        pairs = (part.partition(":") for part in self.signing_secrets.split(",") if part)
        return {key.strip(): secret.strip() for key, _, secret in pairs}

    @property
    def further_ui_hosts(self) -> tuple[str, ...]:
        """The names of `ui_hosts`, one by one."""
        return tuple(name for name in (part.strip() for part in self.ui_hosts.split(",")) if name)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from `env` (the process environment by default).

        Raises:
            UserError: a variable has the wrong form, or its name is none of ours (most often a typo).
        """
        env = os.environ if env is None else env
        given = {key.removeprefix(PREFIX).lower(): value for key, value in env.items() if key.startswith(PREFIX)}
        for name in given:
            if name not in cls.__struct_fields__:
                known = ", ".join(PREFIX + field.upper() for field in cls.__struct_fields__)
                raise UserError(f"Unknown setting {PREFIX}{name.upper()}. Known settings: {known}.")
        try:
            settings = msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$.")
            field = path.rstrip("`")
            name = PREFIX + field.upper()
            found = "a hidden value" if field in (*HIDDEN, *HAVE_LOGIN) else repr(env.get(name))
            raise UserError(f"Setting {name} is {found}: {message}. Change or unset it.") from None
        part, parts = map(int, settings.consume_share.split("/"))
        if part > parts:
            raise UserError(
                f"Setting {PREFIX}CONSUME_SHARE is {settings.consume_share!r}: expected at most {parts}/{parts}."
            )
        return settings
