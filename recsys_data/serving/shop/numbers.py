"""The live numbers beside the shelves of the demo shop: how fresh, how often clicked, how equal.

Data flow: event log, ledger, impressions and clicks of the last day in the lake, what serving measures -> one JSON
object. Reading them takes longer as there is more; they are read again after ten times that.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from recsys_data.features.parity import parity
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.latency import latency_of, main_ledger
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.serving.delays import EventDelays
from recsys_data.serving.outcomes import EVENTS, outcomes
from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

LEAST_SECONDS = 2.0
WAIT_TIMES = 10
WINDOW = timedelta(days=1)
PARITY_WINDOW = timedelta(hours=1)
PARITY_SECONDS = 60.0
# Each takes seconds.
PARITY_POSITIONS = 2


class Numbers:
    """Reads the numbers, at most every two seconds.

    Args:
        lake: where events are.
        log: whose lines may wait.
        delays: of events in this process.
        serving: what is loaded, as `/health` says it.
        parity: a summary of how served feature values compare with those recomputed; None: it is not measured.
    """

    def __init__(
        self,
        lake: Lake,
        log: EventLog,
        delays: EventDelays,
        serving: Callable[[], dict[str, Any]],
        parity: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        self._lake = lake
        self._log = log
        self._delays = delays
        self._serving = serving
        self._parity = parity
        self._lock = threading.Lock()
        self._due = 0.0
        self._stored: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """The numbers, as JSON has them."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._due:
                self._stored = self._read()
                self._due = time.monotonic() + max(LEAST_SECONDS, WAIT_TIMES * (time.monotonic() - begun))
            stored = self._stored
        return {
            **stored,
            "online": msgspec.to_builtins(self._delays.online()),
            "answers": msgspec.to_builtins(self._delays.first_answers()),
            "serving": self._serving(),
            "parity": self._parity(),
        }

    def _read(self) -> dict[str, Any]:
        since = datetime.now(UTC) - WINDOW
        ledger = main_ledger(self._lake)
        found = outcomes(self._lake, since) if self._lake.exists(EVENTS) else []
        return {
            "events": ledger.accepted,
            "waiting": lag_of(self._log, self._lake).events,
            "stored": msgspec.to_builtins(latency_of(ledger.latencies)),
            "since": since.isoformat(timespec="seconds"),
            "outcomes": [msgspec.to_builtins(one) for one in found],
        }


class RecentParity:
    """How served feature values compare with those of the lake, in the background and once a minute at most.

    Args:
        lake: where impressions and features are.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._due = 0.0
        self._found: dict[str, Any] | None = None

    def read(self) -> dict[str, Any] | None:
        """`values` that were compared and `differences`, of the last hour; None if no features were served in it."""
        with self._lock:
            if time.monotonic() >= self._due:
                # Until it is done nobody starts another.
                self._due = float("inf")
                threading.Thread(target=self._compare, name="parity", daemon=True).start()
        return self._found

    def _compare(self) -> None:
        try:
            if self._lake.exists(EVENTS):
                found = parity(self._lake, datetime.now(UTC) - PARITY_WINDOW, PARITY_POSITIONS)
                self._found = {"values": found.values, "differences": found.different} if found.values else None
        except Exception:
            logger.exception("Served features could not be compared with the lake; tried again in a minute.")
            self._found = None
        finally:
            self._due = time.monotonic() + PARITY_SECONDS
