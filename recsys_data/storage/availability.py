"""An object store that does not answer, told from files that are not there or damaged."""

import contextlib
import re
from collections.abc import Iterator

from recsys_data.errors import Transient

# By which S3 says that asking again is of no use.
REFUSALS = ("NO_SUCH", "NoSuch", "ACCESS_DENIED", "AccessDenied", "InvalidAccessKey", "SignatureDoesNotMatch")
SAID = re.compile(r"^(?:OSError: )?([^\n]*AWS Error[^\n]*)", re.MULTILINE)
SHOWN = 400


class StoreUnavailable(Transient):
    """The object store of the warehouse did not answer, or refused for now."""


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """What to say where the object store did not answer, or refused for now; None for any other error."""
    # DuckDB puts the error of a file that it reads through Python, with its traceback, into the text of its own.
    if not isinstance(error, OSError) and "duckdb" not in type(error).__module__:
        return None
    found = SAID.search(str(error))
    if found is None or any(sign in found[1] for sign in REFUSALS):
        return None
    return StoreUnavailable(f"The warehouse cannot be used now: {found[1][:SHOWN].rstrip('. ')}. Try again.")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Let an object store that does not answer be reported as such.

    Raises:
        StoreUnavailable: within this, it did not.
    """
    try:
        yield
    except OSError as error:
        if found := unavailable(error):
            raise found from error
        raise


def read_failure(error: Exception) -> str | None:
    """What DuckDB said when files, memory or the object store failed it; None if what it was asked is at fault."""
    lines = str(error).strip().splitlines() or [""]
    if type(error).__name__ in ("IOException", "OutOfMemoryException"):
        return lines[0]
    return next((line for line in lines if line.startswith(("OSError: ", "FileNotFoundError: "))), None)
