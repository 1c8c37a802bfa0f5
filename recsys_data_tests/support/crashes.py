"""Crashing a consumer at any step: before and after everything that leaves a trace."""

from collections.abc import Callable
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from recsys_data.ingestion.streaming import stream_writer as writer
from recsys_data.ingestion.streaming.deduplication import DedupIndex
from recsys_data.storage import commit
from recsys_data.storage import parquet as write

STEPS: tuple[tuple[Any, str], ...] = (
    (writer, "build"),
    (writer, "write_days"),
    (write, "sync_all"),
    (writer, "write_intent"),
    (writer, "commit"),
    (commit, "swap"),
    (SqlCatalog, "commit_table"),
    (writer, "remove_intent"),
    (DedupIndex, "persist"),
)
PLACES = [f"{when} {name}" for _, name in STEPS for when in ("before", "after")]


class Crash(BaseException):
    """The end of a process, which nothing in it can catch."""


class Crashes:
    """Raises `Crash` when a place is passed for the `passes`-th time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.disarm()
        for owner, name in STEPS:
            patch.setattr(owner, name, self._wrapped(name, getattr(owner, name)))

    def arm(self, place: str, passes: int) -> None:
        assert place in PLACES
        self.place, self.left = place, passes

    def disarm(self) -> None:
        self.place, self.left = "", 0

    def _wrapped(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def crashing(*args: Any, **kwargs: Any) -> Any:
            self._pass(f"before {name}")
            result = work(*args, **kwargs)
            self._pass(f"after {name}")
            return result

        return crashing

    def _pass(self, place: str) -> None:
        if place == self.place:
            self.left -= 1
            if self.left == 0:
                raise Crash(place)
