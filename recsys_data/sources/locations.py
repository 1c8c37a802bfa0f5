"""Where a server's state lies: `{day}`, `{data_dir}`, `${VARIABLE}`, patterns, days that exist.

Data flow: location of a contract -> URL or list of files, on this machine or in S3.
Messages show locations as the contract states them: the values of variables and passwords are in none.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit
from urllib.parse import quote as percent_encoded

from recsys_data.contracts.contract import Server
from recsys_data.errors import Transient, UserError
from recsys_data.redaction import OPTION, redacted, redacted_url
from recsys_data.settings import variable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

DAY = "{day}"
VARIABLE = re.compile(r"\$\{(\w+)\}")
# User and password of a URL, as far as they are spelled in it, and options that hold a secret.
LOGIN = re.compile(r"(?<=://)[^/@]*(?=@)")
WILDCARD = re.compile(r"[*?\[]")
KEYS_OF_S3 = "Take it out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment."
SHOWN_DAYS = 10
# What S3 answers when trying again is of no use.
S3_REFUSALS = ("NO_SUCH", "NoSuch", "ACCESS_DENIED", "AccessDenied", "InvalidAccessKey", "SignatureDoesNotMatch")


def named(server: Server) -> str:
    """The server in messages: its name, and its location without a password."""
    return f"server {server.name} ({redacted_url(server.location)})"


def resolved(server: Server, data_dir: Path, day: str | None) -> str:
    """The location with everything put in; `{day}` stays where `day` is None.

    A variable within `user:password@` or as the value of an option such as `password=` is taken as it is and
    percent-encoded here.

    Raises:
        UserError: a variable is not set; names it.
    """

    def value(found: re.Match[str]) -> str:
        if (text := variable(found[1])) is None:
            raise UserError(f"{named(server)}: the environment variable {found[1]} is not set. Set it and try again.")
        return text

    def login(found: re.Match[str]) -> str:
        return VARIABLE.sub(lambda named: percent_encoded(value(named), safe=""), found[0])

    text = VARIABLE.sub(value, OPTION.sub(login, LOGIN.sub(login, server.location)))
    return (text if day is None else text.replace(DAY, day)).replace("{data_dir}", str(data_dir))


def open_files(server: Server, location: str) -> "tuple[FileSystem, str]":
    """The file system of a resolved location, and the path on it."""
    from pyarrow import fs

    if not location.startswith("s3://"):
        return fs.LocalFileSystem(), str(Path(location.removeprefix("file://")).expanduser().absolute())
    path = location.removeprefix("s3://")
    endpoint = _endpoint(server)
    # Nothing below takes a login from a location: it would be part of the name of the bucket, and shown.
    if set("@:") & set(path.split("/")[0]):
        raise UserError(f"{named(server)} holds a login. {KEYS_OF_S3}")
    with explained(server):
        if endpoint is None:
            return fs.S3FileSystem(region=variable("AWS_REGION") or fs.resolve_s3_region(path.split("/")[0])), path
        return fs.S3FileSystem(
            endpoint_override=endpoint.netloc,
            scheme=endpoint.scheme,
            region=variable("AWS_REGION") or "us-east-1",
            connect_timeout=10,
            request_timeout=60,
        ), path


def _endpoint(server: Server) -> "SplitResult | None":
    """Where the S3 of a server is, if it is not Amazon's.

    Raises:
        UserError: it is no URL, or holds a login.
    """
    if server.endpoint is None:
        return None
    try:
        found = urlsplit(server.endpoint if "://" in server.endpoint else f"https://{server.endpoint}")
    except ValueError:
        raise UserError(f"{named(server)}: its endpoint is not a URL. Expected https://host:port.") from None
    if "@" in server.endpoint:
        raise UserError(f"{named(server)}: its endpoint holds a login. {KEYS_OF_S3}")
    return found


@contextmanager
def explained(server: Server, path: str = "") -> Iterator[None]:
    """Turn errors of a file system into ours.

    Raises:
        UserError: it is not there, or may not be read.
        Transient: S3 does not answer.
    """
    try:
        yield
    except OSError as error:
        first = redacted((str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix("."))
        place = f"{named(server)}: {path}".removesuffix(": ")
        lasting = any(answer in first for answer in S3_REFUSALS) or not server.location.startswith("s3://")
        if lasting or isinstance(error, FileNotFoundError | PermissionError):
            raise UserError(f"{place} cannot be read: {first}. Mend the location, or the file.") from None
        raise Transient(f"{place} cannot be read: {first}.") from None


def expand(files: "FileSystem", pattern: str) -> list[str]:
    """The files of a pattern in name order; a folder stands for all files in it. Hidden files are left out."""
    from pyarrow.fs import FileType

    return sorted(path for path, kind in _matches(files, f"{pattern.rstrip('/')}") if kind == FileType.File) or sorted(
        path for path, kind in _matches(files, f"{pattern.rstrip('/')}/*") if kind == FileType.File
    )


def _matches(files: "FileSystem", pattern: str) -> list[tuple[str, object]]:
    """What matches a pattern, one part of the path after the other, so that nothing beside it is listed."""
    from pyarrow.fs import FileSelector, FileType

    steps = pattern.split("/")
    first = next((n for n, step in enumerate(steps) if WILDCARD.search(step)), None)
    if first is None:
        found = files.get_file_info(pattern)
        return [] if found.type == FileType.NotFound else [(found.path, found.type)]
    matched: list[tuple[str, object]] = []
    for info in files.get_file_info(FileSelector("/".join(steps[:first]), allow_not_found=True)):
        if not info.base_name.startswith((".", "_")) and fnmatchcase(info.base_name, steps[first]):
            if first == len(steps) - 1:
                matched.append((info.path, info.type))
            elif info.type == FileType.Directory:
                matched += _matches(files, "/".join([info.path, *steps[first + 1 :]]))
    return matched


def days_of_files(server: Server, data_dir: Path) -> list[date]:
    """The days for which the part of the path that holds `{day}` exists, oldest first."""
    location = resolved(server, data_dir, None)
    files, path = open_files(server, location)
    steps = path.split("/")
    at = next(n for n, step in enumerate(steps) if DAY in step)
    before, after = steps[at].split(DAY, 1)
    with explained(server):
        # A path that holds the day twice is looked for by the first; `?` stands for the ten characters of a day.
        pattern = "/".join([*steps[:at], f"{before}{'?' * 10}{after.replace(DAY, '*')}"])
        found = {_day(path.rsplit("/", 1)[1][len(before) : len(before) + 10]) for path, _ in _matches(files, pattern)}
    return sorted(day for day in found if day)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 and text[4] == "-" else None
    except ValueError:
        return None


def files_of_day(server: Server, data_dir: Path, day: date) -> "tuple[FileSystem, list[str]]":
    """The files that hold the state of a day, in name order.

    Raises:
        UserError: there are none; says which days there are.
    """
    files, pattern = open_files(server, resolved(server, data_dir, day.isoformat()))
    with explained(server):
        found = expand(files, pattern)
    if found:
        return files, found
    if DAY not in server.location:
        raise UserError(f"{named(server)}: no files there. Put them there, or mend the location.")
    days = [f"{there}" for there in days_of_files(server, data_dir)]
    there = f"the days there are {', '.join(days[-SHOWN_DAYS:])}" if days else "there are none of any day"
    raise UserError(
        f"{named(server)}: no folder or files for {day}; {there}{' (the newest)' * (len(days) > SHOWN_DAYS)}. "
        "Deliver that day, or take another."
    )
