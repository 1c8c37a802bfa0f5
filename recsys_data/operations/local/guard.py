"""Ends process groups when whoever started them is gone, however that ended: a process of its own, run by its path.

Data flow: stdin (a line `+GROUP` or `-GROUP` each time a process group begins or has ended) -> end of stdin, which the
kernel brings about when the other end dies -> SIGTERM to the groups that are left, and SIGKILL to what does not listen.
Stands alone, so that it takes little memory and loads nothing.
"""

import os
import signal
import sys
import time

STOP_SECONDS = 30.0
POLL_SECONDS = 0.1


def main() -> None:
    """Wait for the end, and bring it about for the others."""
    groups = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        groups = {group for group in groups if sent(group, number)}
        while groups and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            groups = {group for group in groups if sent(group, 0)}


def sent(group: int, number: int) -> bool:
    """Send a signal to a process group; whether anybody is in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
