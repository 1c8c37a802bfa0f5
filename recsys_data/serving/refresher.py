"""Keeps what serving holds in memory up to date with the lake, in a thread of its own.

Not with low priority: it holds the interpreter at times, and answers would wait for it the longer.
"""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Refresher:
    """Calls a function again and again; a failure is logged, and what was there before stays.

    Args:
        name: of what is refreshed, for people.
        refresh: does the work; whatever it raises is a failure.
        seconds: between the end of one call and the next.
        on_failure: called with each failure.
    """

    def __init__(
        self,
        name: str,
        refresh: Callable[[], object],
        seconds: float,
        on_failure: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.name = name
        self.failure: str | None = None
        self._refresh = refresh
        self._seconds = seconds
        self._on_failure = on_failure
        self._succeeded_at: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"refresh-{name}", daemon=True)

    @property
    def age(self) -> float | None:
        """Seconds since the last success; None before the first."""
        return None if self._succeeded_at is None else time.monotonic() - self._succeeded_at

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, and wait until it does, but not long: a query cannot be interrupted."""
        self._stop.set()
        self._thread.join(timeout=2 * self._seconds + 1)

    def once(self) -> None:
        """Refresh now, in this thread."""
        try:
            self._refresh()
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if message != self.failure:
                # Once for each kind of failure: it is tried every second.
                logger.exception("The %s could not be refreshed; what was there before is used.", self.name)
            self.failure = message
            self._on_failure(self.name)
        else:
            self.failure = None
            self._succeeded_at = time.monotonic()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.once()
            self._stop.wait(self._seconds)
