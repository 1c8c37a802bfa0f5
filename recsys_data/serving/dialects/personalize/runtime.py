"""`personalize-runtime`: GetRecommendations and GetPersonalizedRanking -> `Request` -> `Answer` -> what its SDKs read.

The name in the ARN of a campaign or recommender is that of a scenario (`declared.py`). `recommendationId` is that of
the answer, so that events which carry it join what was shown.
"""

from typing import Any

from recsys_data.errors import UserError
from recsys_data.serving.answers import Answer, Recommender, Request
from recsys_data.serving.dialects.declared import Dialects, canonical
from recsys_data.serving.dialects.personalize.errors import invalid, not_found
from recsys_data.serving.dialects.personalize.shapes import (
    DEFAULT_RESULTS,
    GetPersonalizedRanking,
    GetRecommendations,
)

# The only filter: items of the category that its first value names.
CATEGORY_FILTER = "category"
REASONS = dict.fromkeys(("popular", "popular_by_segment", "available"), ["Popular item"])


async def get_recommendations(asked: GetRecommendations, recommender: Recommender, dialects: Dialects) -> object:
    """Items for a user, or items similar to one.

    Raises:
        AwsError: the request makes no sense, or names what there is not.
    """
    if asked.promotions:
        raise invalid("promotions are not supported here. Leave them out.")
    arn = asked.campaign_arn or asked.recommender_arn
    if arn is None or (asked.campaign_arn and asked.recommender_arn):
        raise invalid("Expected either campaignArn or recommenderArn.")
    if asked.user_id is None and asked.item_id is None:
        raise invalid("Neither userId nor itemId is given. Expected at least one of them.")
    request = Request(
        user_id=asked.user_id,
        n=asked.num_results or DEFAULT_RESULTS,
        items=(asked.item_id,) if asked.item_id else (),
        scenario=_scenario(arn, dialects),
        context=_context(asked),
    )
    try:
        # Without a user there is nothing but the item to go by.
        answer = await (recommender.recommend(request) if asked.user_id else recommender.similar(request))
    except UserError as error:
        raise invalid(str(error)) from None
    return {"itemList": _items(answer), "recommendationId": answer.recommendation_id}


async def get_personalized_ranking(
    asked: GetPersonalizedRanking, recommender: Recommender, dialects: Dialects
) -> object:
    """The given items in the best order, without those that may not be shown.

    Raises:
        AwsError: as `get_recommendations`.
    """
    request = Request(
        user_id=asked.user_id,
        n=len(asked.input_list),
        items=asked.input_list,
        scenario=_scenario(asked.campaign_arn, dialects),
        context=_context(asked),
    )
    try:
        answer = await recommender.rank(request)
    except UserError as error:
        raise invalid(str(error)) from None
    return {"personalizedRanking": _items(answer), "recommendationId": answer.recommendation_id}


def _scenario(arn: str, dialects: Dialects) -> str:
    scenario = dialects.scenario_of(arn.rpartition("/")[2])
    if scenario is None:
        raise not_found(f"{arn} names no scenario. Name one in it, or list the name in dialects.yaml.")
    return scenario


def _context(asked: GetRecommendations | GetPersonalizedRanking) -> dict[str, Any]:
    if asked.metadata_columns:
        raise invalid("metadataColumns are not supported here. Leave them out.")
    # In the service a context never filters.
    context: dict[str, Any] = {name: value for name, value in (asked.context or {}).items() if name != CATEGORY_FILTER}
    if asked.filter_arn is None:
        return context
    if canonical(asked.filter_arn.rpartition("/")[2]) != CATEGORY_FILTER:
        raise not_found(f"{asked.filter_arn} does not exist. The only filter is {CATEGORY_FILTER}.")
    values = list((asked.filter_values or {}).values())
    if len(values) != 1:
        raise invalid(f"filterValues has {len(values)} values; expected the one category of the filter.")
    # Text is quoted within the value.
    return context | {CATEGORY_FILTER: values[0].strip('"')}


def _items(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"itemId": one.item_id, "score": one.score} | ({"reason": REASONS[one.reason]} if one.reason in REASONS else {})
        for one in answer.items
    ]
