"""Patterns of paths -> the files that match, on this machine or in S3, with what says whether they are whole.

Within a step of a path `*` stands for any characters and `?` for one, and `{day}` for a day; `[*]`, `[?]` and `[[]`
stand for the characters themselves, as `glob.escape` writes them. Other brackets are characters. What was found is a
name, whatever it looks like, and never read as a pattern.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

DAY = "{day}"
# The writer puts it into a folder last, as Spark does.
MARKER = "_SUCCESS"
TEMPORARY = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".download", ".inprogress", ".writing")
HIDDEN = (".", "_")
TOKEN = re.compile(r"\[([*?[])\]|(\{day\})|([*?])|(.)", re.DOTALL)
NAMED_DAY = r"(?P<day>\d{4}-\d\d-\d\d)"


@dataclass(slots=True)
class Listing:
    """What matches a pattern.

    Attributes:
        files: those to read, in name order.
        temporary: those that are hidden or that a writer has not renamed yet, by their names; not to be read.
        markers: folders that hold `_SUCCESS`, with its time of modification (nanoseconds since 1970).
    """

    files: "list[FileInfo]" = field(default_factory=list)
    temporary: "list[FileInfo]" = field(default_factory=list)
    markers: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether a marker that is newer than the files says that each of their folders is whole."""
        folders = [(info.path.rpartition("/")[0], info.mtime_ns or 0) for info in self.files]
        return bool(folders) and all(self.markers.get(folder, -1) >= changed for folder, changed in folders)

    @property
    def state(self) -> list[tuple[str, int, int]]:
        """Path, size and time of modification of every file; equal while nobody writes."""
        return [(info.path, info.size, info.mtime_ns or 0) for info in (*self.files, *self.temporary)]


def find(files: "FileSystem", pattern: str) -> Listing:
    """The files of a pattern; a folder stands for all files in it. Hidden and temporary files are not read."""
    steps = pattern.rstrip("/").split("/")
    found = _listed(files, steps)
    if not found.files:
        within = _listed(files, [*steps, "*"])
        within.temporary += found.temporary
        return within
    return found


def days_of(files: "FileSystem", pattern: str) -> set[str]:
    """The days (YYYY-MM-DD) for which the first step of a path that holds `{day}` exists."""
    steps = pattern.split("/")
    at = next(number for number, step in enumerate(steps) if DAY in step)
    name = _pattern(steps[at])
    found = (name.fullmatch(info.base_name) for info in _matches(files, "", steps[: at + 1], Listing()))
    return {match["day"] for match in found if match}


def _listed(files: "FileSystem", steps: Sequence[str]) -> Listing:
    from pyarrow.fs import FileType

    listing = Listing()
    listing.files = [info for info in _matches(files, "", steps, listing) if info.type == FileType.File]
    listing.files.sort(key=lambda info: info.path)
    listing.temporary.sort(key=lambda info: info.path)
    return listing


def _matches(files: "FileSystem", folder: str, steps: Sequence[str], listing: Listing) -> "Iterator[FileInfo]":
    """What matches the steps below a folder, one after the other, so that nothing beside it is listed."""
    from pyarrow.fs import FileSelector, FileType

    plain = [_literal(step) for step in steps]
    first = plain.index(None) if None in plain else len(steps)
    folder = "/".join([folder] * bool(folder) + [step for step in plain[:first] if step is not None])
    if not folder and first and not steps[0]:
        folder = "/"
    if first == len(steps):
        found = files.get_file_info(folder)
        if found.type != FileType.NotFound:
            yield found
        return
    step, more = steps[first], steps[first + 1 :]
    name = _pattern(step)
    for info in files.get_file_info(FileSelector(folder, allow_not_found=True)):
        if info.type == FileType.Directory and more:
            if name.fullmatch(info.base_name) and _is_shown(info.base_name, step):
                yield from _matches(files, info.path, more, listing)
        elif not more and info.base_name == MARKER:
            listing.markers[folder] = info.mtime_ns or 0
        elif not more and name.fullmatch(final := _final_name(info.base_name, step)):
            if final == info.base_name:
                yield info
            elif info.type == FileType.File:
                listing.temporary.append(info)


def _is_shown(name: str, step: str) -> bool:
    """Whether a name is not hidden, or hidden on purpose: the pattern begins so too."""
    return not name.startswith(HIDDEN) or name[0] == step[0]


def _final_name(name: str, step: str) -> str:
    """The name that a file will have when it is whole: its own, but for what marks it as hidden or temporary."""
    ending = next((end for end in TEMPORARY if name.lower().endswith(end) and not step.lower().endswith(end)), "")
    final = name[: len(name) - len(ending)]
    return final if _is_shown(final, step) else final.lstrip("._")


def _literal(step: str) -> str | None:
    """The name that a step stands for; None if it is a pattern."""
    tokens = list(TOKEN.finditer(step))
    return None if any(token[2] or token[3] for token in tokens) else "".join(token[1] or token[4] for token in tokens)


def _pattern(step: str) -> re.Pattern[str]:
    text, named = "", False
    for token in TOKEN.finditer(step):
        if token[2]:
            text, named = text + ("(?P=day)" if named else NAMED_DAY), True
        else:
            text += {"*": ".*", "?": "."}.get(token[3] or "", "") or re.escape(token[1] or token[4])
    return re.compile(text, re.DOTALL)
