"""What every request goes through: its key is checked, its body read within limits, its refusal explained."""

import asyncio
import base64
import hmac
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec
from starlette.requests import Request

from recsys_data.errors import RecsysDataError

READ_SECONDS = 30.0
PLAIN_ENCODINGS = frozenset({"", "identity"})
GZIP_ENCODINGS = frozenset({"gzip", "x-gzip"})
GZIP_WINDOW = 31
# The rest of a refused body is read and thrown away, up to this many times the limit: a client that cannot
# send all of it sees a broken connection instead of the reason, and tries again.
DISCARDED_LIMITS = 8
# Gzip of incompressible data is longer than the data by less than this.
GZIP_OVERHEAD = 0.001
GZIP_BYTES = 1024
# Clients send one; some proxies and tools cut what they pass on into pieces of 64 KiB.
MAX_GZIP_MEMBERS = 64
WRITE_KEY = re.compile(rb'"writeKey"\s*+:\s*+("(?:[^"\\]|\\.){0,1024}+")', re.DOTALL)
MAX_WRITE_KEYS = 1000


class RequestError(RecsysDataError):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status; SDKs send 408, 429 and 5xx again and give up on every other.
        retry_after: seconds after which the same request may be accepted.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


def basic_key(request: Request) -> str | None:
    """The write key of an `Authorization: Basic` header (the user name), or None without such a header."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


def check_key(presented: object, keys: Sequence[str], elsewhere: str = " or as `writeKey`") -> None:
    """Compare with every key in constant time; without keys, everybody may write.

    Args:
        presented: what was sent as a key.
        keys: the right ones.
        elsewhere: where a key may be but in the header, for the message.

    Raises:
        RequestError: 401, the key is missing or wrong.
    """
    given = presented.encode("utf-8", "surrogatepass") if isinstance(presented, str) else b""
    if keys and not _is_key(given, keys):
        found = "a wrong write key" if given else "no write key"
        raise RequestError(401, f"Found {found}. Send the key as the user name of Basic authentication{elsewhere}.")


def check_body_key(body: bytes, keys: Sequence[str]) -> None:
    """Refuse, without parsing it, a body in which no right key stands under `writeKey`.

    It may be misplaced; the parser of the body checks that.

    Raises:
        RequestError: 401, the key is missing or wrong.
    """
    named = {match[1] for match in islice(WRITE_KEY.finditer(body), MAX_WRITE_KEYS)}
    given = [_text(one) for one in named]
    if not any(_is_key(one, keys) for one in given):
        check_key(given[0].decode("utf-8", "surrogatepass") if given else None, keys)


def _is_key(given: bytes, keys: Iterable[str]) -> bool:
    # Each is compared, so that the time does not reveal which it was.
    matches = [hmac.compare_digest(given, key.encode()) for key in keys]
    return any(matches)


def _text(quoted: bytes) -> bytes:
    try:
        return msgspec.json.decode(quoted, type=str).encode("utf-8", "surrogatepass")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""


async def read_body(request: Request, limit: int, reserve: Callable[[int], None]) -> bytes:
    """The body of a request, decompressed; never more than `limit` bytes of it are held.

    Args:
        request: the request, not read yet.
        limit: bytes after decompression; before it, hardly more.
        reserve: is called with each piece's bytes before it is kept, and may raise `RequestError`.

    Raises:
        RequestError: 400 for a broken gzip body or one in too many members, 408 if it comes too slowly, 413 if it is
        too
            long, 415 for an unknown encoding.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    unzip = Gunzip(limit) if encoding in GZIP_ENCODINGS else None
    refusal: RequestError | None = None
    if encoding not in PLAIN_ENCODINGS | GZIP_ENCODINGS:
        refusal = RequestError(415, f"Content-Encoding is {encoding!r}; expected gzip or none.")
    body, discarded = bytearray(), 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                if refusal is None:
                    refusal = _add(body, chunk, unzip, limit, reserve)
                elif (discarded := discarded + len(chunk)) > DISCARDED_LIMITS * limit:
                    break
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {READ_SECONDS:g} seconds.") from None
    if refusal:
        raise refusal
    if unzip and not unzip.complete:
        raise RequestError(400, "The gzip body is truncated. Send all of it.")
    return bytes(body)


def _add(
    body: bytearray, chunk: bytes, unzip: "Gunzip | None", limit: int, reserve: Callable[[int], None]
) -> RequestError | None:
    """Append a piece to `body`; on refusal, let go of what was read and say why."""
    most = limit + 1 - len(body)
    try:
        piece = unzip.feed(chunk, most) if unzip else chunk[:most]
        reserve(len(piece))
    except RequestError as refusal:
        body.clear()
        return refusal
    body += piece
    if len(body) <= limit:
        return None
    body.clear()
    return RequestError(413, f"The body has more than {limit} bytes (after decompression). Send it in smaller batches.")


class Gunzip:
    """Decompresses gzip as it arrives, one or several members, a bounded number of bytes at a time.

    Args:
        limit: bytes after decompression; packed, no more than they can need.
    """

    def __init__(self, limit: int) -> None:
        self._member = zlib.decompressobj(GZIP_WINDOW)
        self._begun = False
        self._members = 1
        self._most_packed = int(limit * (1 + GZIP_OVERHEAD)) + GZIP_BYTES
        self._packed = 0

    @property
    def complete(self) -> bool:
        """Whether the last member is whole."""
        return self._begun and self._member.eof

    def feed(self, data: bytes, most: int) -> bytes:
        """Decompress `data`; what exceeds `most` bytes is dropped, because the body is then too long anyway.

        Raises:
            RequestError: 400, this is not gzip, or has too many members; 413, it is too long.
        """
        self._packed += len(data)
        if self._packed > self._most_packed:
            raise RequestError(
                413, f"The gzip body has more than {self._most_packed} bytes. Send it in smaller batches."
            )
        out = bytearray()
        self._begun = True
        try:
            while data and len(out) < most:
                if self._member.eof:
                    self._members += 1
                    if self._members > MAX_GZIP_MEMBERS:
                        raise RequestError(400, f"The gzip body has more than {MAX_GZIP_MEMBERS} members. Send one.")
                    self._member = zlib.decompressobj(GZIP_WINDOW)
                out += self._member.decompress(data, most - len(out))
                data = self._member.unused_data
        except zlib.error as error:
            raise RequestError(400, f"The body is not gzip, as its Content-Encoding says: {error}.") from None
        return bytes(out)
