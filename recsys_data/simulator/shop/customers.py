"""The registered users of the storefront at a moment, as their shop and its CRM know them.

Users are those of the events (`world.People`). They register, order at a pace that follows their activity, like
other categories after a while, lapse, and some leave for good or for weeks. Money is in cents, times are
seconds since 1970; 0 stands for never.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.catalogue import BRANDS, PLACES, RATES
from recsys_data.simulator.epochs import DAY, Floats, Ints, epochs, hash_noise
from recsys_data.simulator.world import SEGMENTS, World

STATES = ("prospect", "new", "active", "lapsed", "closed")
PROSPECT, NEW, ACTIVE, LAPSED, CLOSED = range(5)
NEW_FOR, LAPSED_AFTER, CLOSED_FOR = 30 * DAY, 120 * DAY, 3 * DAY
DAYS_BETWEEN_ORDERS = 50.0
HIGH_VALUE_CENTS = 150_000
CAMPAIGNS = ("winback", "loyalty", "early access")
SEXES = ("female", "male", "diverse")


@dataclass(frozen=True, slots=True)
class Customers:
    """Those who have an account at a moment, N of them; arrays of shape (N,).

    Attributes:
        person: index into `world.People`.
        signed_up, first_order, last_order, modified: times; `modified` is when the shop last changed anything.
        state: index into `STATES`.
        orders, cents: how many so far, and what they cost in the currency of the person's place.
        categories, brands: names that the person declared to like.
        born: year of birth, 0 where not declared.
        sex: index into `SEXES`, -1 where not declared.
    """

    person: Ints
    signed_up: Ints
    first_order: Ints
    last_order: Ints
    modified: Ints
    state: Ints
    orders: Ints
    cents: Ints
    categories: list[list[str]]
    brands: list[list[str]]
    born: Ints
    sex: Ints

    def __len__(self) -> int:
        return len(self.person)


def customers(world: World, now: int) -> Customers:
    """The accounts of the shop at `now`."""
    seed, everyone = world.seed, np.arange(world.users)
    account = epochs(seed, "account", everyone, (500, 900), now)
    leaves = account.began + account.length - ((5 + 25 * hash_noise(seed, "away", everyone)) * DAY).astype(np.int64)
    who = everyone[now < leaves]
    began, leaves = account.began[who], leaves[who]
    orders, first, last, cents = _orders(world, who, began, now)
    likes = epochs(seed, "likes", who, (60, 240), now)
    state, since = _state(began, leaves, orders, last, now)
    categories, brands = _likes(world, who, likes.number)
    declared = hash_noise(seed, "declared", who)
    born = np.where(declared < 0.7, 1945 + (62 * hash_noise(seed, "born", who) ** 0.8).astype(np.int64), 0)
    sex = np.where(declared < 0.6, np.searchsorted((0.49, 0.97), hash_noise(seed, "sex", who)), -1)
    modified = np.max([began, last, likes.began, since], axis=0)
    return Customers(who, began, first, last, modified, state, orders, cents, categories, brands, born, sex)


def _orders(world: World, who: Ints, began: Ints, now: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Orders so far, time of the first and the last, and their cents."""
    activity = np.clip(world.people.activity[who] * len(world.people), 0.2, 20)
    interval = (DAYS_BETWEEN_ORDERS * DAY / activity).astype(np.int64)
    offset = (interval * hash_noise(world.seed, "first order", who)).astype(np.int64)
    orders = (now - began + offset) // interval
    first, last = (np.where(orders > 0, began + which * interval - offset, 0) for which in (1, orders))
    rate = np.array([RATES[place.currency][0] for place in PLACES])[world.people.place[who]]
    basket = (2000 + 9000 * hash_noise(world.seed, "basket", who) ** 2) * rate
    # No order is like another: the golden ratio spreads what they differ by, and each costs something.
    cents = basket * (orders + 0.5 * np.modf(orders * 0.6180339887)[0])
    return orders, first, last, cents.astype(np.int64)


def _state(began: Ints, leaves: Ints, orders: Ints, last: Ints, now: int) -> tuple[Ints, Ints]:
    """Where in the lifecycle, and since when."""
    closing, grown, lapsing = leaves - CLOSED_FOR, began + NEW_FOR, last + LAPSED_AFTER
    conditions = [now >= closing, now < grown, orders == 0, now >= lapsing]
    state = np.select(conditions, [CLOSED, NEW, PROSPECT, LAPSED], ACTIVE)
    # Who comes back after a pause is active from that order on, which the first conditions cover.
    since = np.select(conditions, [closing, began, grown, np.maximum(lapsing, grown)], grown)
    return state, since


def _likes(world: World, who: Ints, number: Ints) -> tuple[list[list[str]], list[list[str]]]:
    """Names of up to three categories near the person's taste, and of up to two brands."""
    names = [path[1] for path in world.categories.path]
    nearest = _nearest(world.people.taste[who] @ world.categories.factors.T, 6)
    kept = np.array([hash_noise(world.seed, f"likes {rank}", who, number) for rank in range(6)]).T < 0.35
    categories = [
        list(dict.fromkeys(names[leaf] for leaf in leaves[chosen]))[:3]
        for leaves, chosen in zip(nearest, kept, strict=True)
    ]
    luckily = np.array([hash_noise(world.seed, f"brand {rank}", who, number) for rank in range(2)]).T * len(BRANDS) * 2
    brands = [
        [BRANDS[brand] for brand in dict.fromkeys(row) if brand < len(BRANDS)]
        for row in luckily.astype(np.int64).tolist()
    ]
    return categories, brands


def _nearest(closeness: Floats, count: int) -> Ints:
    return np.argsort(-closeness, axis=1, kind="stable")[:, :count]


@dataclass(frozen=True, slots=True)
class Relations:
    """What the CRM knows of the N customers; boolean arrays of shape (N,)."""

    segments: list[list[str]]
    profiling: npt.NDArray[np.bool_]
    marketing: npt.NDArray[np.bool_]


def relations(world: World, found: Customers, now: int) -> Relations:
    """Segments and consents of customers at `now`."""
    seed, who = world.seed, found.person
    agreed = epochs(seed, "consent", who, (150, 500), now).number
    profiling = hash_noise(seed, "profiling", who, agreed) < 0.8
    marketing = hash_noise(seed, "marketing", who, agreed) < 0.55
    campaign = epochs(seed, "campaign", who, (20, 60), now).number
    chosen = (hash_noise(seed, "campaign", who, campaign) * 2 * len(CAMPAIGNS)).astype(np.int64)
    rate = np.array([RATES[place.currency][0] for place in PLACES])[world.people.place[who]]
    high = found.cents > HIGH_VALUE_CENTS * rate
    mailed = np.where(marketing, chosen, len(CAMPAIGNS))
    segments = [
        [SEGMENTS[base], *(["high value"] if rich else []), *CAMPAIGNS[which : which + 1]]
        for base, rich, which in zip(world.people.segment[who].tolist(), high.tolist(), mailed.tolist(), strict=True)
    ]
    return Relations(segments, profiling, marketing)
