"""Ends process groups when their supervisor is gone, even by `kill -9`: a process of its own, run by its path.

Data flow: stdin (one process group a line) -> end of stdin, which the kernel causes when the supervisor dies -> SIGTERM
to every group, and after a while SIGKILL to what is left. Imports nothing of this package, so that it stays small.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

STOP_SECONDS = 30.0
POLL_SECONDS = 0.1


def stop(groups: Iterable[int], reap: Callable[[], None] = lambda: None) -> None:
    """End process groups: SIGTERM, then SIGKILL after `STOP_SECONDS`; returns when no process is left in them.

    Args:
        groups: their ids.
        reap: collects the exit codes of those that are children of this process, which exist until then.
    """
    left = list(groups)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        left = [group for group in left if sent(group, number)]
        while left and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            reap()
            left = [group for group in left if sent(group, 0)]


def sent(group: int, number: int) -> bool:
    """Send a signal to a process group; false if there is no such group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    stop([int(line) for line in sys.stdin])
