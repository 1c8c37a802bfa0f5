"""An object store that does not answer, told from files that are not there or damaged."""

import contextlib
from collections.abc import Iterator

from recsys_data.errors import Transient

# By which S3 says that asking again is of no use.
REFUSALS = ("NO_SUCH", "NoSuch", "ACCESS_DENIED", "AccessDenied", "InvalidAccessKey", "SignatureDoesNotMatch")
SHOWN = 300


class StoreUnavailable(Transient):
    """The object store of the warehouse did not answer, or refused for now."""


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """What to say where the object store did not answer, or refused for now; None for any other error."""
    text = str(error)
    if not isinstance(error, OSError) or "AWS Error" not in text or any(sign in text for sign in REFUSALS):
        return None
    return StoreUnavailable(f"The warehouse cannot be used now: {text.strip().splitlines()[0][:SHOWN]}. Try again.")


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
