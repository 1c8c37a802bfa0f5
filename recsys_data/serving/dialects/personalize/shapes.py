"""The requests of Amazon Personalize's runtime and events APIs, with the limits of its service models.

Names, lengths and numbers are those of the models that the SDKs carry (botocore: `personalize-runtime` 2018-05-22,
`personalize-events` 2018-03-22).
"""

from typing import Annotated, Any

import msgspec

from recsys_data.ingestion.streaming.collector.bodies import NOT_JSON
from recsys_data.serving.dialects.personalize.errors import AwsError, invalid

MAX_RESULTS = 500
DEFAULT_RESULTS = 25

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Arn = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^arn:([a-z\d-]+):personalize:.*:.*:.+$")]
Results = Annotated[int, msgspec.Meta(ge=0, le=MAX_RESULTS)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request; members that are not known are left out, as AWS does."""


class GetRecommendations(Shape, frozen=True):
    """See the API of that name; all members are optional there, too."""

    campaign_arn: Arn | None = None
    recommender_arn: Arn | None = None
    user_id: Text | None = None
    item_id: Text | None = None
    num_results: Results | None = None
    context: Annotated[dict[str, str], msgspec.Meta(max_length=150)] | None = None
    filter_arn: Arn | None = None
    filter_values: Annotated[dict[str, str], msgspec.Meta(max_length=25)] | None = None
    promotions: list[Any] | None = None
    metadata_columns: dict[str, Any] | None = None


class GetPersonalizedRanking(Shape, frozen=True):
    """See the API of that name."""

    campaign_arn: Arn
    user_id: Text
    input_list: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=MAX_RESULTS)]
    context: Annotated[dict[str, str], msgspec.Meta(max_length=150)] | None = None
    filter_arn: Arn | None = None
    filter_values: Annotated[dict[str, str], msgspec.Meta(max_length=25)] | None = None
    metadata_columns: dict[str, Any] | None = None


class Event(Shape, frozen=True):
    """One event of `PutEvents`; `properties` is JSON in a string, `sent_at` seconds since 1970."""

    event_type: Text
    sent_at: float
    event_id: Text | None = None
    event_value: float | None = None
    item_id: Text | None = None
    properties: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    recommendation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=40)] | None = None
    impression: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=25)] | None = None
    metric_attribution: dict[str, Any] | None = None


class PutEvents(Shape, frozen=True):
    """See the API of that name."""

    tracking_id: Text
    session_id: Text
    event_list: Annotated[tuple[Event, ...], msgspec.Meta(min_length=1, max_length=10)]
    user_id: Text | None = None


class Item(Shape, frozen=True):
    """One item of `PutItems`; `properties` is JSON in a string."""

    item_id: Text
    properties: Annotated[str, msgspec.Meta(min_length=1, max_length=32_000)] | None = None


class PutItems(Shape, frozen=True):
    """See the API of that name."""

    dataset_arn: Arn
    items: Annotated[tuple[Item, ...], msgspec.Meta(min_length=1, max_length=10)]


class User(Shape, frozen=True):
    """One user of `PutUsers`; `properties` is JSON in a string."""

    user_id: Text
    properties: Annotated[str, msgspec.Meta(min_length=1, max_length=24_000)] | None = None


class PutUsers(Shape, frozen=True):
    """See the API of that name."""

    dataset_arn: Arn
    users: Annotated[tuple[User, ...], msgspec.Meta(min_length=1, max_length=10)]


def decode_as(body: bytes, shape: type[Any]) -> Any:
    """A request of a shape.

    Raises:
        AwsError: 400, the body is not JSON, or not of that shape; names the member.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except NOT_JSON as error:
        raise AwsError(400, "SerializationException", f"The body is not JSON: {error}.") from None
