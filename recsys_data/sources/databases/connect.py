"""Connecting to databases, and what their errors mean: fix something (UserError), or try again (Transient).

Messages hold the driver's first line, without the password.
"""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from recsys_data.contracts.servers import Server
from recsys_data.errors import RecsysDataError, Transient, UserError
from recsys_data.redaction import SECRET_NAME, redacted
from recsys_data.sources.locations import named

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL


Connection = TypeVar("Connection")

ATTEMPTS = 3
PAUSE_SECONDS = 0.5
# What databases say when trying again with the same contract and login is of no use.
REFUSAL = re.compile(
    "authentication failed|no password supplied|access denied|command denied|permission denied|no pg_hba.conf entry"
    "|does not exist|doesn't exist|no such (table|column|function)|unknown (database|column)|invalid uri|syntax error"
    "|unable to open database file|is not a database|division by zero|invalid input syntax|out of range|cannot cast",
    re.IGNORECASE,
)
# What ADBC puts before the message of PostgreSQL.
PREFIX = re.compile(r"^[A-Z_]+: (\[libpq\] )?(Failed to prepare query: )?(ERROR: +)?|^\[libpq\] ")


def explain(server: Server, secrets: tuple[str, ...], error: Exception, lasting: bool = False) -> RecsysDataError:
    """Our error for one of a driver; `lasting` if its kind says already that trying again is of no use."""
    number_and_text = len(error.args) == 2 and isinstance(error.args[1], str)
    text = PREFIX.sub("", error.args[1] if number_and_text else str(error).strip())
    text = redacted(text, secrets)
    first = (text.splitlines() or [type(error).__name__])[0].strip().rstrip(".")
    if lasting or REFUSAL.search(first):
        return UserError(f"{named(server)}: {first}. Fix the server in the contract, or what it names in the database.")
    return Transient(f"{named(server)}: {first}. The state must be read again from its start.")


def patiently(connect: Callable[[], Connection], explained: Callable[[Exception], RecsysDataError]) -> Connection:
    """Connect, up to `ATTEMPTS` times while that may help.

    Raises:
        UserError, Transient: as `explained` says of what `connect` raised at last.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return connect()
        except Exception as error:
            found = explained(error)
            if attempt == ATTEMPTS or not isinstance(found, Transient):
                raise found from None
            time.sleep(PAUSE_SECONDS * attempt)
    raise AssertionError("unreachable")


def source_of(server: Server, quoted: Callable[[str], str]) -> str:
    """What stands after FROM."""
    if server.query:
        return f"({server.query.strip().rstrip(';')}) AS source_rows"
    return ".".join(quoted(part) for part in str(server.table).split("."))


def secrets_of(url: "URL") -> tuple[str, ...]:
    """What of a URL must be in no message."""
    options = (value for name, value in url.query.items() if SECRET_NAME.fullmatch(name))
    values = (one for value in options for one in ([value] if isinstance(value, str) else value))
    return (url.password or "", *values)
