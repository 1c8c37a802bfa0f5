"""What Gorse reads and writes: JSON structures, query parameters, and errors as plain text.

As in `server/rest.go` of gorse-io/gorse (v0.4 and v0.5): go-restful answers an error with its status, and its message
as text.
"""

import re
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from recsys_data.ingestion.streaming.collector.bodies import NOT_JSON
from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.collector.responses import as_json

JSON = "application/json"
DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_ID = 256


class Feedback(msgspec.Struct, rename="pascal"):
    """A feedback: what a user did to an item."""

    feedback_type: str = ""
    user_id: str = ""
    item_id: str = ""
    timestamp: str = ""
    comment: str = ""
    value: float = 0.0


class Item(msgspec.Struct, rename="pascal"):
    """An item; replaces the one of its id."""

    item_id: str = ""
    is_hidden: bool = False
    categories: list[str] | None = None
    timestamp: str = ""
    labels: Any = None
    comment: str = ""


class ItemPatch(msgspec.Struct, rename="pascal"):
    """What of an item changes; what is None stays."""

    is_hidden: bool | None = None
    categories: list[str] | None = None
    timestamp: str | None = None
    labels: Any = None
    comment: str | None = None


class User(msgspec.Struct, rename="pascal"):
    """A user; replaces the one of its id."""

    user_id: str = ""
    labels: Any = None
    subscribe: list[str] | None = None
    comment: str = ""


class UserPatch(msgspec.Struct, rename="pascal"):
    """What of a user changes; what is None stays."""

    labels: Any = None
    subscribe: list[str] | None = None
    comment: str | None = None


def refused(refusal: RequestError) -> Response:
    """The answer to a request that is refused."""
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else None
    return Response(str(refusal), refusal.status, headers, "text/plain; charset=utf-8")


def affected(count: int) -> Response:
    """The answer to a request that wrote something."""
    return as_json(200, {"RowAffected": count})


def read_entity(http: HttpRequest, body: bytes, kind: type[Any]) -> Any:
    """The structure in a body.

    Raises:
        RequestError: 400, it is not JSON, or not of that kind.
    """
    sent = http.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != JSON:
        raise RequestError(400, f"[ServiceError:400] Unable to unmarshal content of type:{sent}")
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise RequestError(400, f"The body cannot be read: {error}") from None


def check_id(name: str, value: str) -> str:
    """An id that events and tables can hold.

    Raises:
        RequestError: 400, it is empty or too long.
    """
    if not 0 < len(value) <= MAX_ID:
        raise RequestError(400, f"{name} has {len(value)} characters; expected 1 to {MAX_ID}.")
    return value


def check_labels(labels: object) -> None:
    """Labels are strings in lists and objects, or vectors of numbers.

    Raises:
        RequestError: 400, they are something else.
    """
    if labels is None or isinstance(labels, str):
        return
    if isinstance(labels, dict):
        for one in labels.values():
            check_labels(one)
        return
    if isinstance(labels, list):
        kinds = {str if isinstance(one, str) else float if type(one) in (int, float) else None for one in labels}
        if len(kinds) <= 1 and None not in kinds:
            return
    raise RequestError(400, f"unsupported labels: {msgspec.json.encode(labels).decode()}")


def integer_of(http: HttpRequest, name: str, default: int) -> int:
    """A number of the query.

    Raises:
        RequestError: 400, it is not a whole number of at least 0.
    """
    given = http.query_params.get(name, "")
    if not given:
        return default
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", given):
        raise RequestError(400, f'strconv.Atoi: parsing "{given}": invalid syntax')
    if (found := int(given)) < 0:
        raise RequestError(400, f"{name} is {found}; expected at least 0.")
    return found


def duration_of(text: str) -> float:
    """Seconds of a duration as Go writes it.

    >>> duration_of("1h30m"), duration_of("1.5s"), duration_of("")
    (5400.0, 1.5, 0.0)

    Raises:
        RequestError: 400, it is something else.
    """
    if text in ("", "0"):
        return 0.0
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise RequestError(400, f'time: invalid duration "{text}"')
    return sum(float(number) * SECONDS[unit] for number, unit in parts)
