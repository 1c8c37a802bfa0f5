"""Which items an answer leaves out.

Answers ask when everything else is done, so that whether an item may be shown is what the newest catalogue says.
"""

from collections.abc import Callable

from recsys_data.errors import UserError
from recsys_data.serving.answers import Recent, Request
from recsys_data.serving.catalogue import Catalogue
from recsys_data.serving.scenarios.declared import Scenario

Keeps = Callable[[str], bool]


def filter_of(request: Request, scenario: Scenario, recent: Recent, catalogue: Catalogue, *, given: bool) -> Keeps:
    """Whether an item may be in the answer to a request.

    Args:
        request: what is asked.
        scenario: whose filters count.
        recent: what the visitor met.
        catalogue: the newest one.
        given: whether the items of the request are those to choose from; otherwise they are left out.

    Raises:
        UserError: `context.category` is not text.
    """
    barred = set(request.exclude)
    if not given:
        barred.update(request.items)
        if "seen" in scenario.filters:
            barred.update(recent.items)
    category = request.context.get("category")
    if category is not None and not isinstance(category, str):
        raise UserError(f"context.category is {category!r}; expected text.")
    if category is None and "same_category" in scenario.filters and request.items:
        path = catalogue.categories(request.items[-1])
        category = path[-1] if path else None

    broken = [catalogue.broken[rule] for rule in scenario.rules.values() if rule in catalogue.broken]

    def keeps(item_id: str) -> bool:
        if item_id in barred or not catalogue.shows(item_id) or any(item_id in one for one in broken):
            return False
        return category is None or category in catalogue.categories(item_id)

    return keeps
