"""Where a server's state lies: `{day}`, `{data_dir}`, `${VARIABLE}`, patterns, days that exist.

Data flow: location of a contract -> URL or list of files, on this machine or in S3.
Messages show locations as the contract states them: the values of variables and passwords are in none.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from glob import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from urllib.parse import quote as percent_encoded

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient, UserError
from recsys_data.redaction import OPTION, redacted, redacted_url
from recsys_data.settings import variable
from recsys_data.sources.files.patterns import DAY, Listing, days_of, find

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


VARIABLE = re.compile(r"\$\{(\w+)\}")
# User and password of a URL, as far as they are spelled in it, and options that hold a secret.
LOGIN = re.compile(r"(?<=://)[^/@]*(?=@)")
KEYS_OF_S3 = "Take it out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment."
SHOWN_DAYS = 10
# What S3 answers when trying again is of no use.
S3_REFUSALS = ("NO_SUCH", "NoSuch", "ACCESS_DENIED", "AccessDenied", "InvalidAccessKey", "SignatureDoesNotMatch")


def named(server: Server) -> str:
    """The server in messages: its name, and its location without a password."""
    return f"server {server.name} ({redacted_url(server.location)})"


def resolved(
    server: Server, data_dir: Path, day: str | None, literal: Callable[[str], str] = lambda put_in: put_in
) -> str:
    """The location with everything put in; `{day}` stays where `day` is None.

    A variable within `user:password@` or as the value of an option such as `password=` is taken as it is and
    percent-encoded here.

    Args:
        server: its location.
        data_dir: what `{data_dir}` stands for.
        day: what `{day}` stands for.
        literal: how text that is put in is written, so that it is taken as it is; of patterns `glob.escape`.

    Raises:
        UserError: a variable is not set; names it.
    """

    def value(found: re.Match[str]) -> str:
        if (text := variable(found[1])) is None:
            raise UserError(f"{named(server)}: the environment variable {found[1]} is not set. Set it and try again.")
        return text

    def login(found: re.Match[str]) -> str:
        return VARIABLE.sub(lambda named: percent_encoded(value(named), safe=""), found[0])

    text = OPTION.sub(login, LOGIN.sub(login, server.location))
    text = VARIABLE.sub(lambda found: literal(value(found)), text)
    return (text if day is None else text.replace(DAY, day)).replace("{data_dir}", literal(str(data_dir)))


def is_in_s3(server: Server) -> bool:
    """Whether its location is `s3://`, with the variables of the environment put in."""
    return VARIABLE.sub(lambda found: variable(found[1]) or "", server.location).startswith("s3://")


def open_files(server: Server, pattern: str) -> "tuple[FileSystem, str]":
    """The file system of a pattern, and the pattern of paths on it."""
    from pyarrow import fs

    if not pattern.startswith("s3://"):
        return fs.LocalFileSystem(), _absolute(pattern.removeprefix("file://"))
    path = pattern.removeprefix("s3://")
    endpoint = _endpoint(server)
    # Nothing below takes a login from a location: it would be part of the name of the bucket, and shown.
    if set("@:") & set(path.split("/")[0]):
        raise UserError(f"{named(server)} holds a login. {KEYS_OF_S3}")
    region, keys = server.s3.region or variable("AWS_REGION"), server.s3.keys and server.s3.keys()
    with explained(server):
        options: dict[str, Any] = {"retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=server.s3.attempts)}
        if keys:
            options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
        if endpoint is None:
            return fs.S3FileSystem(region=region or fs.resolve_s3_region(path.split("/")[0]), **options), path
        return fs.S3FileSystem(
            endpoint_override=endpoint.netloc,
            scheme=endpoint.scheme,
            region=region or "us-east-1",
            connect_timeout=10,
            request_timeout=60,
            **options,
        ), path


def _endpoint(server: Server) -> "SplitResult | None":
    """Where the S3 of a server is, if it is not Amazon's.

    Raises:
        UserError: it is not a URL, or holds a login.
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


def _absolute(pattern: str) -> str:
    """A pattern of local paths from the root on; home and current folder are taken as they are."""
    first, *rest = pattern.split("/")
    if first.startswith("~"):
        pattern = "/".join([escape(str(Path(first).expanduser())), *rest])
    return str(PurePosixPath(escape(str(Path.cwd()))) / pattern)


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
            raise UserError(f"{place} cannot be read: {first}. Fix the location, or the file.") from None
        raise Transient(f"{place} cannot be read: {first}.") from None


def days_of_files(server: Server, data_dir: Path) -> list[date]:
    """The days for which the part of the path that holds `{day}` exists, oldest first."""
    files, pattern = open_files(server, resolved(server, data_dir, None, escape))
    with explained(server):
        found = {_day(text) for text in days_of(files, pattern)}
    return sorted(day for day in found if day)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def files_of_day(server: Server, data_dir: Path, day: date) -> "tuple[FileSystem, Callable[[], Listing]]":
    """The file system, and what lists the files there that hold the state of a day, as often as it is called."""
    files, pattern = open_files(server, resolved(server, data_dir, day.isoformat(), escape))

    def list_files() -> Listing:
        with explained(server):
            return find(files, pattern)

    return files, list_files


def no_files(server: Server, data_dir: Path, day: date, listing: Listing) -> UserError:
    """What to say where no file holds the state of a day: which days there are, and what is not read."""
    if listing.temporary:
        names = ", ".join(info.base_name for info in listing.temporary[:SHOWN_DAYS])
        return UserError(
            f"{named(server)}: for {day} there are only files with temporary names, which are not read: {names}. "
            "Rename them when they are written."
        )
    if DAY not in server.location:
        return UserError(f"{named(server)}: no files there. Put them there, or fix the location.")
    days = [f"{there}" for there in days_of_files(server, data_dir)]
    there = f"the days there are {', '.join(days[-SHOWN_DAYS:])}" if days else "there are none of any day"
    return UserError(
        f"{named(server)}: no folder or files for {day}; {there}{' (the newest)' * (len(days) > SHOWN_DAYS)}. "
        "Deliver that day, or take another."
    )


PACKED = {"gz": "gzip", "zst": "zstd"}


def open_stream(files: "FileSystem", path: str) -> Any:
    """The unpacked bytes of a file."""
    return files.open_input_stream(path, compression=PACKED.get(path.rsplit(".", 1)[-1]))
