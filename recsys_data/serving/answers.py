"""What is asked of serving and what it answers, whatever the protocol: HTTP APIs translate to and from these.

Data flow: HTTP or a dialect -> `Request` -> `Recommender` -> `Answer` -> HTTP or a dialect.
"""

from typing import Annotated, Any, Protocol

import msgspec

MAX_ITEMS = 500
MAX_IDS = 10_000
MAX_OFFSET = 10_000
# Events cannot be later than a day after they were received.
MAX_DELAY_SECONDS = 24 * 3600
DEFAULT_SCENARIO = "home"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
# With a position behind it, it is the id of an event.
RecommendationId = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Ids = Annotated[tuple[Id, ...], msgspec.Meta(max_length=MAX_IDS)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked.

    Attributes:
        user_id: of whom; None for visitors that are not known.
        anonymous_id: of the device or browser.
        session_id: of the visit that goes on.
        n: how many items at most; None: as many as the scenario says.
        context: what else is known of the moment. `category` keeps to items of a category and those below it.
        scenario: where the items are shown, such as `home` or `item_page`.
        exclude: items that are not answered.
        items: for `recommend`, items that the visitor looks at (newest last); for `rank`, the items to order; for
            `similar`, the items to which others are similar.
        offset: how many of the best items are left out, because a page before showed them.
        shown_after_seconds: when the items will be shown, of answers that are fetched ahead.
        recommendation_id: of the answer, where the client has one; the same id must not be used for another request.
    """

    user_id: Id | None = None
    anonymous_id: Id | None = None
    session_id: Id | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] | None = None
    context: dict[str, Any] = {}
    scenario: Id = DEFAULT_SCENARIO
    exclude: Ids = ()
    items: Ids = ()
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)] = 0
    shown_after_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_SECONDS)] = 0.0
    recommendation_id: RecommendationId | None = None

    @property
    def visitor(self) -> str | None:
        """Whom the answer is for, as far as it is known: the user, else the device, else the session."""
        return self.user_id or self.anonymous_id or self.session_id


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item of an answer.

    Attributes:
        item_id: which.
        position: place in the answer, from 1.
        score: of the model, larger is better; only scores of one answer compare.
        propensity: probability with which this item is at this position, in (0, 1].
        reason: why it is there: `session` (similar to what the visitor met last), `similar` (to the items of the
            request), `model` (recommended to the visitor), `content` (like items that the visitor met, and new),
            `popular`, `popular_by_segment`, `available`, or `given` (asked to be ranked).
    """

    item_id: str
    position: int
    score: float
    propensity: float
    reason: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered.

    Attributes:
        recommendation_id: unique; impressions, clicks and purchases refer to it.
        model: name and version of the model, such as `next_items/3`; if no model chose, `content`,
            `popular_by_segment`, `popular` or `available`.
        variant: of the scenario's experiment, None if it has none.
        scenario: as asked.
        fallback: the model was missing, failed or too slow, or knows nothing of the visitor.
        items: best first, as far as the order is not explored.
    """

    recommendation_id: str
    model: str
    variant: str | None
    scenario: str
    fallback: bool
    items: tuple[Item, ...]


class Recommender(Protocol):
    """Answers requests. There is always an answer; it may have no items."""

    async def recommend(self, request: Request) -> Answer:
        """Items for a visitor.

        Raises:
            UserError: the request makes no sense, such as an unknown scenario.
        """
        ...

    async def rank(self, request: Request) -> Answer:
        """The items of the request in the best order; those that may not be shown are left out.

        Raises:
            UserError: as `recommend`.
        """
        ...

    async def similar(self, request: Request) -> Answer:
        """Items similar to those of the request.

        Raises:
            UserError: as `recommend`.
        """
        ...


class Visitors(Protocol):
    """What is known of visitors: an online store, or memory filled from the lake."""

    def recent_items(self, request: Request) -> "Recent":
        """The items that the visitor of a request met lately; empty for unknown visitors."""
        ...


class Recent(msgspec.Struct, frozen=True):
    """Items that a visitor met.

    Attributes:
        items: of views, clicks, carts and purchases, newest last, each once.
        session: of these, those of the visit that goes on, newest last; empty if it is not known.
    """

    items: tuple[str, ...] = ()
    session: tuple[str, ...] = ()
