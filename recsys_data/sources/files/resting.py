"""Files that somebody may still be writing -> files that rest, so that half of a state is never taken for the whole.

Files rest if nothing changed in size or time of modification for some seconds; a marker (`_SUCCESS`) says at once that
they are whole. A writer that stalls for longer than that can only be recognised by a temporary name or a marker.
"""

import time
from collections.abc import Callable

from recsys_data.errors import Transient
from recsys_data.sources.files.patterns import MARKER, Listing

REST_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
SHOWN = 3


def at_rest(
    list_files: Callable[[], Listing],
    rest: float,
    where: str,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Listing:
    """Wait until what `list_files` lists rests, and return it.

    Args:
        list_files: lists the files.
        rest: seconds without a change.
        where: names the source in the error.
        clock: seconds since 1970.
        sleep: waits.

    Raises:
        Transient: it is still written after half a minute; names files that changed.
    """
    seen, waited = list_files(), 0.0
    while (still := _seconds_to_wait(seen, rest, clock())) > 0:
        sleep(still)
        waited += still
        again = list_files()
        if again.state == seen.state:
            return again
        if waited > PATIENCE_SECONDS:
            raise changing(where, seen, again)
        seen = again
    return seen


def changing(where: str, before: Listing, after: Listing) -> Transient:
    """What to say of files that change."""
    names = sorted({path.rsplit("/", 1)[-1] for path, _, _ in set(before.state) ^ set(after.state)})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return Transient(
        f"{where}: {', '.join(names[:SHOWN])}{more} changed while they were read. Try again when they are written; "
        f"deliver files under temporary names (.part) and rename them, or put {MARKER} into the folder last."
    )


def _seconds_to_wait(seen: Listing, rest: float, now: float) -> float:
    """How long what is listed must not change yet."""
    if seen.complete or not seen.state:
        return 0.0
    age = now - max(changed for _, _, changed in seen.state) / 1e9
    # The time of a file from the future shows that two clocks differ, and nothing of its age.
    return rest if age < 0 else max(0.0, rest - age)
