"""Redaction: text for people, logs and Dagster without the passwords, tokens and keys in it.

The only place that decides what of a URL is secret. It knows secrets in two ways: those that a caller names, in every
spelling that libraries print, and those that their place gives away: after `user:` in a URL, in options such as
`password=`, in the paths of webhooks, and after `Authorization`.
"""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
# Names of options that hold a secret, as part of a name: sslpassword, aws_secret_access_key, X-Amz-Signature.
SECRET_NAMES = (
    "password|passwd|passphrase|pwd|secret|token|signature|credential|(?:api|access|account|private|ssl)_?key"
)
# Bounded, or a long word of such names would take quadratic time.
NAME_END = rf"(?:{SECRET_NAMES})[\w.-]{{0,60}}"
NAME = rf"[\w.-]{{0,60}}{NAME_END}"
# These are too common elsewhere.
OPTION_NAME = rf"{NAME}|key|sig|auth|pass|pw|sas|code"
SECRET_NAME = re.compile(OPTION_NAME, re.IGNORECASE)
# What is hidden already takes no bracket after it along.
NOT_HIDDEN = rf"(?!{re.escape(HIDDEN)}[)\]}}])"
# What follows an & without being an option belongs to a password that is not encoded.
OPTION = re.compile(
    rf"(?<=[?&;])({OPTION_NAME})={NOT_HIDDEN}[^&;\s\"'<>]*(?:&[^&;=\s\"'<>]*(?![^&;\s\"'<>]))*(?<![&)])", re.IGNORECASE
)
# Connection strings: password=..., PWD='...'. Quoted names as of JSON and of Python: "password": "...".
ASSIGNED = re.compile(
    rf"({NAME_END}(?:\s*=\s*|\\?[\"']\s*:\s*))(b?'(?:[^']|'')*'|b?\"[^\"]*\"|{NOT_HIDDEN}[^\s,;&'\"]+)",
    re.IGNORECASE,
)
# Whatever stands between `user:` and the last @: a password that is not encoded may hold / # ? : and @. Only words
# with an @ are searched, or many `://` without one would take quadratic time.
WORD = re.compile(r"(?<![^\s\"'<>])[^\s\"'<>]+@")
LOGIN = re.compile(r"(?<=://)([^/:@]*?)(?::|%3A).*@", re.IGNORECASE)
# A user without a password is one only where there are no users: in addresses of the web it is a token.
WEB_LOGIN = re.compile(r"(\bhttps?://)[^\s/@\"'<>]+@", re.IGNORECASE)
WEBHOOK = re.compile(
    r"(https?://(?:hooks\.slack\.com|[\w.]*discord(?:app)?\.com/api/webhooks|[\w.-]*webhook\.office\.com)/)[^\s\"'<>]+",
    re.IGNORECASE,
)
AUTHORIZATION = re.compile(
    r"(authorization[^\w*]{1,6})(?:b['\"])?(?:(?:basic|bearer|digest|token|api-?key)\s+)?[^\s\"',;)}\]]+", re.IGNORECASE
)


class Redactor:
    """Cuts secrets out of texts.

    Args:
        secrets: cut out wherever they stand, as they are and percent-encoded or escaped.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted(_spellings(secrets), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known:
            text = self._known.sub(HIDDEN, text)
        text = OPTION.sub(rf"\1={HIDDEN}", text)
        text = WORD.sub(lambda word: LOGIN.sub(rf"\1:{HIDDEN}@", word[0], count=1), text)
        text = WEB_LOGIN.sub(rf"\1{HIDDEN}@", text)
        text = WEBHOOK.sub(rf"\1{HIDDEN}", text)
        text = ASSIGNED.sub(rf"\1{HIDDEN}", text)
        return AUTHORIZATION.sub(rf"\1{HIDDEN}", text)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Text in which no secret is left; what is around them stays. It may hold several URLs.

    >>> redacted("cannot reach postgresql://shop:p@ss:w/rd#1@db:5432/shop?sslmode=require")
    'cannot reach postgresql://shop:***@db:5432/shop?sslmode=require'
    >>> redacted("mysql://db/shop?user=shop&password=p@ss:w/rd#1&charset=utf8")
    'mysql://db/shop?user=shop&password=***&charset=utf8'
    """
    return Redactor(secrets)(text)


def redacted_url(url: str) -> str:
    """A text that is one URL as a whole, so that blanks and quotes may be part of a password too.

    >>> redacted_url("postgresql://shop:two words@db/shop")
    'postgresql://shop:***@db/shop'
    """
    for secret in secrets_of(url):
        url = url.replace(secret, HIDDEN)
    return redacted(url)


def secrets_of(url: str) -> list[str]:
    """The passwords, tokens and keys in a URL, as they are spelled in it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return []
    before, _, options = rest.partition("?")
    found = _secret_options(options)
    # Without an @ before the options, one behind them belongs to a password with a question mark, or to a value.
    login, at, _ = before.rpartition("@")
    if not at and not found:
        login = rest.rpartition("@")[0]
    user, colon, password = login.partition(":")
    if "/" not in user:
        found += [password] if colon else [user] if scheme in ("http", "https") else []
    return [secret for secret in found if secret]


def _secret_options(options: str) -> list[str]:
    """The values of those options that hold secrets, with the parts after an & that are not options."""
    found: list[str] = []
    within = False
    for option in re.split("(?<=[&;])", options):
        name, equals, value = option.partition("=")
        if equals:
            within = SECRET_NAME.fullmatch(name) is not None
            found += [value] if within else []
        elif within:
            found[-1] += option
    return [value.rstrip("&;") for value in found]


def _spellings(secrets: Iterable[str]) -> set[str]:
    """Each secret as it is, decoded, percent-encoded, and escaped as JSON and Python write it."""
    spelled: set[str] = set()
    for secret in filter(None, secrets):
        plain = {secret, unquote(secret), unquote_plus(secret)}
        encoded = {code for one in plain for code in (quote(one, safe=""), quote(one), quote_plus(one))}
        escaped = {code for one in plain for code in (json.dumps(one)[1:-1], repr(one)[1:-1])}
        spelled |= plain | encoded | escaped
    return spelled
