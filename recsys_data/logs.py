"""What processes log: a line of text or of JSON each, with the ids that lead from a request to its rows, and no secret.

Data flow: `logger.info(message, extra={...})` + what is bound -> one line on stderr.
The ids: `request_id` (collector), `log_partition`, `log_start`, `log_end` (an append, a commit), `run_id` (Dagster),
`snapshots` (a commit). Write keys, the alert URL, passwords in URLs and Authorization headers are cut out of every
line, also out of tracebacks. Run alone: `RECSYS_DATA_LOG_FORMAT=json recsys-data collect`.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from recsys_data.redaction import HIDDEN, Redactor
from recsys_data.settings import Settings

# A line for each append and each commit: for machines that gather logs, hence in JSON, or at level debug.
audit = logging.getLogger("recsys_data.trail")

# Shorter keys would be found within words.
LEAST_SECRET = 6
# What every record has; anything else was given with it.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

_bound: ContextVar[Mapping[str, Any]] = ContextVar("recsys_data_log_fields", default=MappingProxyType({}))


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Put fields into every line that is logged meanwhile, in this thread or task."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_field(name: str) -> Any:
    """The value of a bound field, if there is one."""
    return _bound.get().get(name)


def configure(settings: Settings, name: str = "", level: str = "") -> None:
    """Let loggers from `name` on (all of them, by default) write to stderr as the settings say.

    May be called again; the last call holds. `level` replaces that of the settings.
    """
    logger = logging.getLogger(name)
    for handler in [one for one in logger.handlers if isinstance(one, StderrHandler)]:
        logger.removeHandler(handler)
    handler = StderrHandler()
    secrets = settings.secrets
    handler.setFormatter(JsonFormatter(secrets) if settings.log_format == "json" else TextFormatter(secrets))
    logger.addHandler(handler)
    logger.setLevel((level or settings.log_level).upper())
    wanted = settings.log_format == "json" or settings.log_level == "debug"
    audit.setLevel(logging.NOTSET if wanted else logging.WARNING)


def configure_command(settings: Settings) -> None:
    """For commands that show people what they do: they log in JSON only, but warnings always."""
    configure(settings, level="" if settings.log_format == "json" else "warning")


class StderrHandler(logging.StreamHandler):
    """Writes to whatever stderr is at the moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class Redacting(logging.Formatter):
    """Cuts secrets out of what is written."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._redactor = Redactor(one for one in secrets if len(one) >= LEAST_SECRET)

    def clean(self, line: str) -> str:
        """The line without secrets.

        >>> Redacting(["key-one"]).clean("key key-one, postgresql://me:pw@db/x, Authorization: Basic azE6")
        'key ***, postgresql://me:***@db/x, Authorization: ***'
        """
        return self._redactor(line)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What was bound and what was given with the message."""
        given = {name: value for name, value in vars(record).items() if name not in STANDARD}
        return {**_bound.get(), **given}

    def trace(self, record: logging.LogRecord) -> str:
        """The traceback, if there is one."""
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonFormatter(Redacting):
    """One object a line: ts, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "ts": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        if trace := self.trace(record):
            line["traceback"] = trace
        # Before it is written: cut out of JSON, a secret could take an escape with it.
        return msgspec.json.encode(self.cleaned(line)).decode()

    def cleaned(self, value: Any) -> Any:
        """The value without secrets, as what JSON can hold."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            named = {str(name): one for name, one in value.items()}
            return {
                name: HIDDEN if name.lower() == "authorization" else self.cleaned(one) for name, one in named.items()
            }
        if isinstance(value, (list, tuple, set)):
            return [self.cleaned(one) for one in value]
        # Bytes that are not UTF-8 cannot be written.
        return self.clean(str(value).encode("utf-8", "backslashreplace").decode())


class TextFormatter(Redacting):
    """Time, level, message and the fields, for people."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(" ", "milliseconds")
        fields = "".join(f" {name}={value}" for name, value in self.fields(record).items())
        trace = self.trace(record)
        line = f"{moment.replace('+00:00', 'Z')} {record.levelname} {record.getMessage()}{fields}"
        return self.clean(f"{line}\n{trace}" if trace else line)
