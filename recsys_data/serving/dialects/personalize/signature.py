"""AWS Signature Version 4: who signed a request, and whether that is true.

The access key id is a write key. With secrets, the signature is computed again from the request as it was received
("Create a signed AWS API request", AWS IAM User Guide).
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from starlette.requests import Request as HttpRequest

from recsys_data.ingestion.streaming.collector.requests import RequestError, check_key
from recsys_data.serving.dialects.personalize.errors import AwsError

ALGORITHM = "AWS4-HMAC-SHA256"
PART = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
TIME = "%Y%m%dT%H%M%SZ"
SKEW = timedelta(minutes=5)
UNRECOGNIZED = "The security token included in the request is invalid."
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class Signed(NamedTuple):
    """What the `Authorization` header says.

    Attributes:
        key: the access key id.
        scope: day, region, service and `aws4_request`.
        headers: names of the headers that are signed.
        signature: hexadecimal.
    """

    key: str
    scope: tuple[str, ...]
    headers: tuple[str, ...]
    signature: str


def check_signature(
    http: HttpRequest, body: bytes, keys: Sequence[str], secrets: Mapping[str, str], now: datetime | None = None
) -> None:
    """Check who sent a request; without keys and secrets, everybody may.

    Args:
        http: the request.
        body: as it was received.
        keys: access key ids that may ask.
        secrets: by access key id; with some, the request must be signed with one.
        now: the time of the server.

    Raises:
        AwsError: 403, the key is missing or unknown, or the signature is wrong or too old.
    """
    if not keys and not secrets:
        return
    signed = parse(http.headers.get("authorization", ""))
    try:
        # In constant time, as the collector does.
        check_key(signed.key, keys)
    except RequestError:
        raise AwsError(403, "UnrecognizedClientException", UNRECOGNIZED) from None
    if not secrets:
        return
    secret = secrets.get(signed.key)
    if secret is None:
        raise AwsError(403, "UnrecognizedClientException", UNRECOGNIZED)
    sent = http.headers.get("x-amz-date", "")
    _check_time(sent, now or datetime.now(UTC))
    if not hmac.compare_digest(signed.signature, sign(http, body, signed, secret, sent)):
        raise AwsError(403, "InvalidSignatureException", MISMATCH)


def parse(header: str) -> Signed:
    """The parts of an `Authorization` header.

    Raises:
        AwsError: 403, there is none; 400, it is not whole.
    """
    if not header:
        raise AwsError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = header.partition(" ")
    parts = dict(PART.findall(rest))
    key, *scope = parts.get("Credential", "").rsplit("/", 4)
    if algorithm != ALGORITHM or len(parts) != 3 or len(scope) != 4 or not parts["Signature"].isascii():
        raise AwsError(
            400,
            "IncompleteSignatureException",
            f"Authorization is not {ALGORITHM} with Credential=KEY/DAY/REGION/SERVICE/aws4_request, SignedHeaders and "
            "Signature.",
        )
    return Signed(key, tuple(scope), tuple(parts["SignedHeaders"].split(";")), parts["Signature"])


def _check_time(sent: str, now: datetime) -> None:
    try:
        moment = datetime.strptime(sent, TIME).replace(tzinfo=UTC)
    except ValueError:
        raise AwsError(
            400, "IncompleteSignatureException", f"X-Amz-Date is {sent!r}; expected YYYYMMDDTHHMMSSZ."
        ) from None
    if abs(now - moment) > SKEW:
        what = "expired" if moment < now else "not yet current"
        raise AwsError(403, "InvalidSignatureException", f"Signature {what}: {sent} and now {now.strftime(TIME)}.")


def sign(http: HttpRequest, body: bytes, signed: Signed, secret: str, sent: str) -> str:
    """The signature that a request should have."""
    path = http.scope.get("raw_path", http.url.path.encode()).decode("latin-1").partition("?")[0]
    query = parse_qsl(http.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    canonical = "\n".join(
        (
            http.method,
            quote(path, safe="/-_.~"),
            "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query)),
            *(f"{name}:{' '.join(','.join(http.headers.getlist(name)).split())}" for name in signed.headers),
            "",
            ";".join(signed.headers),
            hashlib.sha256(body).hexdigest(),
        )
    )
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    text = "\n".join((ALGORITHM, sent, "/".join(signed.scope), digest))
    key = b"AWS4" + secret.encode()
    for part in signed.scope:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
