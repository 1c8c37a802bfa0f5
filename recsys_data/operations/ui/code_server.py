"""Replaces the process behind Dagster's code server when it died, hangs, or holds definitions that are out of date.

Dagster's code server is two processes: one that clients call, and one behind it that holds the definitions. The first
replaces the second only when it is asked to reload, as the UI's button does.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dagster._core.errors import DagsterUserCodeUnreachableError

if TYPE_CHECKING:
    from dagster._grpc.client import DagsterGrpcClient

CHECK_SECONDS = 5.0
REPLACE_AFTER_SECONDS = 30.0
REPLACE_SECONDS = 120


def keep(
    client: "DagsterGrpcClient",
    wait: Callable[[float], bool],
    loaded_from: Callable[[], object],
    on_reload: Callable[[], None],
) -> None:
    """Have the process replaced whenever it has not answered for a while; before its first answer it is starting.

    Args:
        client: of the code server.
        wait: sleeps for some seconds; true ends this function.
        loaded_from: what definitions depend on beside code and settings; when it changes, they are loaded anew.
        on_reload: called when other definitions were loaded.
    """
    answered_at: float | None = None
    loaded = loaded_from()
    while not wait(CHECK_SECONDS):
        try:
            client.ping("")
            answered_at = time.monotonic()
            if (now := loaded_from()) != loaded:
                client.reload_code(REPLACE_SECONDS)
                on_reload()
                loaded = now
        except DagsterUserCodeUnreachableError:
            if answered_at is not None and time.monotonic() - answered_at > REPLACE_AFTER_SECONDS:
                # If this fails, it is tried again after the same while.
                with suppress(DagsterUserCodeUnreachableError):
                    client.reload_code(REPLACE_SECONDS)
                answered_at = time.monotonic()
