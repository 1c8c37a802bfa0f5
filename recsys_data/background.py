"""Low priority for long work that nobody waits for, so that consumers and readers on the same machine stay fast."""

import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

NICENESS = 10

P = ParamSpec("P")
T = TypeVar("T")


def in_background(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """The result of `work(*arguments, **named)`, done in a thread that others go before (on Linux).

    Do nothing so for which others wait: a lock would be held the longer, the busier the machine is.
    """
    with ThreadPoolExecutor(1, "background", initializer=_give_way) as pool:
        return pool.submit(work, *arguments, **named).result()


def gives_way(work: Callable[P, T]) -> Callable[P, T]:
    """A function that always does its work `in_background`."""

    @functools.wraps(work)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        return in_background(work, *arguments, **named)

    return call


def _give_way() -> None:
    # Elsewhere a priority belongs to the whole process, and only root could restore it.
    if sys.platform == "linux":
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
