"""Errors in the form of AWS's REST-JSON protocol: the name in the header `x-amzn-ErrorType`, the message in the body.

Names and statuses are those of the service models that the SDKs carry (botocore: `personalize-runtime`,
`personalize-events`), and the common errors of AWS APIs.
"""

from starlette.responses import Response

from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.collector.responses import as_json

# What requests of any API are refused with, by status.
NAMES = {
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    415: "UnsupportedMediaTypeException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


class AwsError(RequestError):
    """A refusal that has a name of AWS.

    Attributes:
        name: such as `InvalidInputException`.
    """

    def __init__(self, status: int, name: str, reason: str) -> None:
        super().__init__(status, reason)
        self.name = name


def invalid(reason: str) -> AwsError:
    return AwsError(400, "InvalidInputException", reason)


def not_found(reason: str) -> AwsError:
    return AwsError(404, "ResourceNotFoundException", reason)


def refused(refusal: RequestError) -> Response:
    """The answer to a request that is refused."""
    status = refusal.status if refusal.status != 501 else 409
    name = refusal.name if isinstance(refusal, AwsError) else NAMES.get(status, _general(status))
    headers = {"x-amzn-ErrorType": name}
    if refusal.retry_after:
        headers["Retry-After"] = str(refusal.retry_after)
    return as_json(status, {"message": str(refusal)}, headers)


def _general(status: int) -> str:
    if status == 409:
        return "ResourceInUseException"
    return "InternalFailure" if status >= 500 else "InvalidInputException"
