"""What stands before the operating system: calls that change files, commits of the catalog, clocks and random bytes.

Only calls on files of the simulated disk count; everything else passes as ever.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from recsys_data_tests.simulation.machine import Machine

SYNCS = ("fsync", "fdatasync")
# As PRAGMA synchronous numbers them; only this one syncs the removal of the journal.
EXTRA = 3


class Calls:
    """Leads the calls of this process to a machine."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self._root = f"{machine.disk.folder}{os.sep}"
        self._before: list[tuple[Any, str, Any]] = []

    @contextmanager
    def led(self) -> Iterator[None]:
        """Lead them there meanwhile."""
        listeners = [(Engine, "commit", self._before_commit), (Session, "after_commit", self._after_commit)]
        self._watch()
        rng = self.machine.rng
        self._put(time, "monotonic", lambda: self.machine.monotonic)
        self._put(time, "sleep", self.machine.advance)
        self._put(os, "urandom", rng.randbytes)
        self._put(tempfile, "_name_sequence", iter(lambda: f"{rng.getrandbits(40):010x}", None))
        random.seed(rng.random())
        for owner, name, listener in listeners:
            event.listen(owner, name, listener)
        try:
            yield
        finally:
            for owner, name, listener in listeners:
                event.remove(owner, name, listener)
            for owner, name, value in reversed(self._before):
                setattr(owner, name, value)

    def _put(self, owner: Any, name: str, value: Any) -> None:
        self._before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _has(self, path: object) -> bool:
        """Whether a path lies on the disk."""
        return f"{path}{os.sep}".startswith(self._root)

    def _watch(self) -> None:
        for name in ("mkdir", "rmdir", "rename", "replace", "unlink", "remove"):
            self._put(os, name, self._by_path(name, getattr(os, name)))
        for name in ("ftruncate", *SYNCS):
            self._put(os, name, self._by_descriptor(name, getattr(os, name)))
        for name in ("pwrite", "write"):
            self._put(os, name, self._writing(name, getattr(os, name)))
        self._put(os, "open", self._opening(os.open))

    def _by_path(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *args: Any, **options: Any) -> Any:
            if options.get("dir_fd") is not None or self._has(path):
                self.machine.operation(name, path)
            return call(path, *args, **options)

        return watched

    def _by_descriptor(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(descriptor: int, *args: Any) -> Any:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if not self._has(path):
                return call(descriptor, *args)
            try:
                self.machine.operation(name, path)
            except OSError:
                if name in SYNCS:
                    self.machine.disk.sync_failed(descriptor)
                raise
            result = call(descriptor, *args)
            if name in SYNCS:
                self.machine.disk.synced(descriptor)
                now = time.time_ns()
                os.utime(descriptor, ns=(now, now))
            return result

        return watched

    def _writing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(descriptor: int, data: Any, *at: int) -> int:
            if not self._has(Path(f"/proc/self/fd/{descriptor}").readlink()):
                return call(descriptor, data, *at)
            fault = self.machine.process.fault if self.machine.process else None
            was_full = bool(fault and fault.happened)
            try:
                self.machine.operation(name, descriptor)
            except OSError:
                # What fits is written first.
                fits = len(data) // 2
                if was_full or not fits:
                    raise
                data = data[:fits]
            written = call(descriptor, data, *at)
            self.machine.disk.written(descriptor, *(at and (at[0], at[0] + written) or (0, written)))
            return written

        return watched

    def _opening(self, call: Callable[..., int]) -> Callable[..., int]:
        def watched(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & os.O_CREAT and self._has(path):
                self.machine.operation("open", path)
            return call(path, flags, *args, **options)

        return watched

    def _before_commit(self, connection: Connection) -> None:
        path = Path(connection.engine.url.database or "")
        if not self._has(path):
            return
        self.machine.operation("before commit", path)
        raw = connection.connection.dbapi_connection
        assert raw is not None
        (synchronous,) = raw.execute("PRAGMA synchronous").fetchone()
        self.machine.disk.committed(path, path.read_bytes(), synchronous >= EXTRA)

    def _after_commit(self, session: Session) -> None:
        self.machine.operation("after commit", "")
