"""What a trace of system calls (strace) says of durability: whether anything was reported before it was on the disk.

Data flow: lines of `strace -f -y` -> `Trace` -> what was committed or acknowledged, and what was not synced then.
A file is safe when it was synced after its last write, and the folder that names it after it was made; so is each
folder on the way to it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

CALLS = "openat,write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat,sendto,sendmsg"
LAKE_FILES = (".parquet", ".avro", ".metadata.json")
WRITES = {"write", "pwrite64", "writev", "pwritev"}
SYNCS = {"fsync", "fdatasync"}
SENDS = {"write", "writev", "sendto", "sendmsg"}

_LINE = re.compile(r"(\d+)\s+(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_FILE = re.compile(r"\d+<([^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FAILED = re.compile(r"\) += -1 ")


@dataclass
class Trace:
    """What happened so far, and the clock (lines) of each thing."""

    root: Path
    clock: int = 0
    written: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    acknowledged: int = 0
    unsafe: list[str] = field(default_factory=list)
    _begun: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    _in_commit: bool = False

    def read(self, lines: Iterable[str]) -> "Trace":
        """Follow the calls of all threads, in the order in which they began or ended."""
        for line in lines:
            self.clock += 1
            if not (found := _LINE.match(line)):
                continue
            thread, resumed, called, rest = found.groups()
            if called and "<unfinished ...>" in rest:
                self._begun[thread, called] = self.clock, rest
                self._begins(called, rest)
            elif called:
                self._begins(called, rest)
                self._ends(called, rest, self.clock)
            elif (thread, resumed) in self._begun:
                begun, first = self._begun.pop((thread, resumed))
                self._ends(resumed, first + rest, begun)
        return self

    def _begins(self, call: str, rest: str) -> None:
        file = _FILE.match(rest)
        if call in SENDS and file and file[1].startswith("socket:") and "HTTP/1.1 200" in rest:
            self._acknowledges()
        if call in WRITES and file and file[1].startswith(str(self.root)):
            if file[1].endswith("/catalog.db"):
                self._commits()
            self.written[file[1]] = self.clock

    def _ends(self, call: str, rest: str, begun: int) -> None:
        if _FAILED.search(rest):
            return
        file = _FILE.match(rest)
        if call in SYNCS and file:
            self.synced[file[1]] = begun
            self._in_commit = self._in_commit and not file[1].endswith("/catalog.db")
        elif call in WRITES and file and file[1] in self.written:
            self.written[file[1]] = self.clock
        elif call.startswith("mkdir") or (call == "openat" and "O_CREAT" in rest):
            if named := _QUOTED.search(rest):
                self.made.setdefault(named[1], self.clock)
        elif call.startswith("rename"):
            old, new = _QUOTED.findall(rest)[:2]
            self.made[new] = self.clock
            for times in (self.written, self.synced):
                if old in times:
                    times[new] = times.pop(old)

    def _commits(self) -> None:
        if not self._in_commit:
            self.commits += 1
            self._in_commit = True
        self._require("commit", [path for path in self.written if path.endswith(LAKE_FILES)])

    def _acknowledges(self) -> None:
        segments = [path for path in self.written if path.endswith(".ndjson")]
        self.acknowledged += bool(segments)
        self._require("acknowledgement", segments)

    def _require(self, what: str, paths: list[str]) -> None:
        for path in paths:
            if self.written[path] >= self.synced.get(path, 0):
                self.unsafe.append(f"{what} before a sync of {path}")
            for name in (path, *map(str, PurePath(path).parents)):
                folder = str(PurePath(name).parent)
                if name in self.made and self.made[name] >= self.synced.get(folder, 0):
                    self.unsafe.append(f"{what} before a sync of {folder}, which names {PurePath(name).name}")
