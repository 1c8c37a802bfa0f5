"""The items of the storefront at a moment, as its PIM knows them, and what its CMS says of them.

Items are those of the events (`world.Items`). Prices go up and down, items run out and come back, texts are
revised, and some items leave the shop for a while. Money is in euro cents, times are seconds since 1970.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.catalogue import TAGS
from recsys_data.simulator.epochs import DAY, Ints, epochs, hash_noise
from recsys_data.simulator.world import World

# No factor follows itself, so that each epoch is a change.
FACTORS = np.array([1.0, 0.9, 1.0, 0.8, 1.05, 0.95])
# How long a price holds.
PRICE_DAYS = (15, 60)
OPENINGS = (
    "Made for every day, and for many of them.",
    "A quiet favourite that does what it should.",
    "Small in price, large in use.",
    "For people who know what they are looking for.",
    "Once you have it, you will not want to be without it.",
)
DETAILS = (
    "The {colour} {material} ages well and is easy to clean.",
    "Its {material} comes from makers that are checked every year.",
    "Available in {colour}, size {size}.",
    "Tested for a year at home, in the office and on the road.",
    "It goes with everything else in {category}.",
    "{brand} repairs it for five years.",
    "Comes in a box of paper, without plastic.",
)
SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Assortment:
    """What the shop has at a moment, N items; arrays of shape (N,).

    Attributes:
        item: index into `world.Items`.
        listed, changed: when it came into the shop, and when price or availability last changed.
        cents: the price.
        available: whether it can be had.
        revision: counts the versions of its texts.
    """

    item: Ints
    listed: Ints
    changed: Ints
    cents: Ints
    available: npt.NDArray[np.bool_]
    revision: Ints

    def __len__(self) -> int:
        return len(self.item)


def prices(world: World, item: Ints, now: Ints | int) -> Ints:
    """What items cost in euro cents, each at its own moment or all at one."""
    price = epochs(world.seed, "price", item, PRICE_DAYS, now)
    first = (len(FACTORS) * hash_noise(world.seed, "factor", item)).astype(np.int64)
    factor = FACTORS[(first + price.number) % len(FACTORS)]
    return np.maximum(np.round(100 * world.items.price[item] * factor), 50).astype(np.int64)


def assortment(world: World, now: int) -> Assortment:
    """The items that the shop has at `now`."""
    seed, every = world.seed, np.arange(len(world.items.item_id))
    listing = epochs(seed, "listing", every, (250, 700), now)
    leaves = listing.began + listing.length - ((4 + 14 * hash_noise(seed, "delisted", every)) * DAY).astype(np.int64)
    item = every[now < leaves]
    listed = listing.began[item]
    price = epochs(seed, "price", item, PRICE_DAYS, now)
    cents = prices(world, item, now)
    # An epoch of the stock begins with days without any.
    stock = epochs(seed, "stock", item, (40, 160), now)
    back = stock.began + ((1 + 5 * hash_noise(seed, "sold out", item, stock.number)) * DAY).astype(np.int64)
    available = now >= back
    changed = np.max([listed, price.began, np.where(available, back, stock.began)], axis=0)
    revision = epochs(seed, "texts", item, (60, 240), now).number
    return Assortment(item, listed, changed, cents, available, revision)


@dataclass(frozen=True, slots=True)
class Texts:
    """What the CMS says of an item."""

    summary: str
    body: str
    topics: list[str]


def texts(world: World, found: Assortment) -> list[Texts]:
    """The texts of each item, in the order of the assortment."""
    seed, items = world.seed, world.items
    draws = [hash_noise(seed, f"text {place}", found.item, found.revision).tolist() for place in range(3)]
    said = []
    for item, *drawn in zip(found.item.tolist(), *draws, strict=True):
        department, category, kind = world.categories.path[items.category[item]]
        words = items.attributes[item] | {"brand": items.brand[item], "category": category}
        start = int(drawn[0] * len(DETAILS))
        # Neighbours in the table, so that no sentence comes twice.
        body = [DETAILS[(start + place) % len(DETAILS)].format(**words) for place in range(SENTENCES)]
        opening = OPENINGS[int(drawn[1] * len(OPENINGS))]
        topics = [department, category, kind, TAGS[int(drawn[2] * len(TAGS))]]
        said.append(Texts(f"{items.title[item]}. {opening}", " ".join([opening, *body]), topics))
    return said
