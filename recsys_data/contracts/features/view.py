"""What a feature view is: entity, sources, and features with their function, filter, window and delay.

Plain data. `check.check` says whether a view makes sense, `point_in_time.join` computes it. Durations and moments are
integers in microseconds; moments count from 1970-01-01 UTC.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
ROLLING, SAWTOOTH, LIFETIME = "rolling", "sawtooth", "lifetime"
# Models of embeddings.
WORDLLAMA = "wordllama"
MODELS = (WORDLLAMA,)
KINDS = (ROLLING, SAWTOOTH, LIFETIME)


def parse_duration(text: str) -> int:
    """Microseconds of a duration such as `30m` or `1d 12h`.

    >>> parse_duration("90s"), parse_duration("1d 12h") == 36 * HOUR
    (90000000, True)

    Raises:
        ValueError: it is not written so.
    """
    if not re.fullmatch(r"\s*(\d+\s*[smhdw]\s*)+", text):
        raise ValueError(f"{text!r} is not a duration; write whole numbers with s, m, h, d or w, e.g. 30m or 1d 12h")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)\s*([smhdw])", text))


@dataclass(frozen=True)
class Window:
    """Which rows count at a moment, by event time.

    With the cutoff c = moment - delay, and always strictly before c:

    - `rolling`: from c - size on;
    - `sawtooth`: from the start of the hop in which c - size lies, hence exact at the head, in steps at the tail;
    - `lifetime`: all of them.

    Attributes:
        kind: one of KINDS.
        size: microseconds; 0 for `lifetime`.
    """

    kind: str = LIFETIME
    size: int = 0

    @property
    def hop(self) -> int:
        """Length of its hops in microseconds: 5 minutes up to 12 hours, 1 hour up to 12 days, else 1 day."""
        if self.kind == LIFETIME or self.size > 12 * DAY:
            return DAY
        return HOUR if self.size > 12 * HOUR else 5 * MINUTE


def parse_window(declared: str | Mapping[str, str]) -> Window:
    """The window of `lifetime`, or of a mapping such as `{rolling: 1h}`.

    Raises:
        ValueError: its size is not a duration, or it names more than one kind. Unknown kinds are left to `check`.
    """
    if isinstance(declared, str):
        return Window(declared)
    if len(declared) != 1:
        raise ValueError(f"a window of {dict(declared)!r}; expected one kind and its size, e.g. {{rolling: 1h}}")
    ((kind, size),) = declared.items()
    return Window(kind, parse_duration(size))


@dataclass(frozen=True)
class Source:
    """A table that features are computed from: a stream of events, or a history of states.

    Attributes:
        columns: name -> DuckDB type.
        time: column of the event time of a stream; None: it has none, so nothing can be aggregated over it.
        known: column of when a row became known (the commit of its micro-batch); None: as soon as it happened.
        order: columns that put rows of the same event time in order.
        valid: columns from and until before which a row of a history is valid (NULL: still); None for a stream.
        identity: column of the user and column of the anonymous id of a stream whose rows without a user belong to
            whom the anonymous id was last merged with; None: rows without a user belong to nobody.
    """

    columns: Mapping[str, str]
    time: str | None = "event_ts"
    known: str | None = "ingested_at"
    order: tuple[str, ...] = ("log_partition", "log_offset")
    valid: tuple[str, str] | None = None
    identity: tuple[str, str] | None = None


@dataclass(frozen=True)
class Feature:
    """One value for each entity and moment: an aggregate, a column of a history, or an expression.

    Attributes:
        name: unique in its view.
        function: name in `functions.FUNCTIONS`, or in `functions.OVER_STATES` if it is `over_states`; None: `column` as
            of the moment, or `expression`.
        column: what is aggregated, SQL over one row of the source, usually a column; rows where it is NULL do not
            count. Optional for `count`.
        filter: SQL condition over one row of the source; rows where it is not true do not count.
        window: which rows count, by event time.
        delay: microseconds by which the feature lags behind.
        n: number of values of `last_n`.
        half_life: of `decayed_sum`, in microseconds.
        scale: decimals to which fractional numbers are rounded before they are summed, so that sums are exact.
        source: name of its source, if it is not that of the view.
        expression: SQL over other features of the view and `request.COLUMN`, evaluated last.
        type: DuckDB type that the value is given; None: as it is computed.
        embedding: one of MODELS that embeds `column`, a text or SQL over one row of a history, as of the moment.
        over_states: whether the function is one over a history, which `over_histories` says.
    """

    name: str
    function: str | None = None
    column: str | None = None
    filter: str | None = None
    window: Window = Window()
    delay: int = 0
    n: int | None = None
    half_life: int | None = None
    scale: int = 4
    source: str | None = None
    expression: str | None = None
    type: str | None = None
    embedding: str | None = None
    over_states: bool = False

    @property
    def is_state(self) -> bool:
        """Whether it is a column of a history."""
        return self.function is None and self.expression is None

    @property
    def is_aggregate(self) -> bool:
        """Whether it is a function over a stream."""
        return self.function is not None and not self.over_states


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity.

    Attributes:
        name: prefix of its features where views are joined: `VIEW__FEATURE`.
        entity: key columns, found under the same names in its sources and in spines.
        source: name of the source of the features that do not name one.
        request: columns of the spine that expressions use as `request.COLUMN`: name -> DuckDB type;
            `request.timestamp` is always there.
    """

    name: str
    entity: tuple[str, ...]
    source: str
    features: tuple[Feature, ...]
    request: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, feature: Feature) -> str:
        return feature.source or self.source

    @property
    def hop(self) -> int:
        """Length of its tiles in microseconds: the shortest hop that its windows need."""
        return min((one.window.hop for one in self.features if one.is_aggregate), default=DAY)


def over_histories(view: FeatureView, sources: Mapping[str, Source]) -> FeatureView:
    """The view with those features marked that are functions over a history."""

    def marked(one: Feature) -> Feature:
        source = sources.get(view.source_of(one))
        return replace(one, over_states=bool(one.function and source and source.valid))

    return replace(view, features=tuple(map(marked, view.features)))


def keys(view: FeatureView, source: Source) -> list[str]:
    """Columns that say whose a row or tile is: the entity, and the anonymous id where it stands for a user."""
    anonymous = source.identity[1:] if source.identity and source.identity[0] in view.entity else ()
    return [*view.entity, *(name for name in anonymous if name not in view.entity)]
