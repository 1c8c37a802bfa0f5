"""The storefront's world: a catalogue, its people, and what they like. Everything else is drawn from it.

What there is to learn:
- Each item has FACTORS latent factors: those of its department, its category, its kind and its own. Each
  person has a taste in the same space, drawn towards up to three kinds. Liking is their scalar product (low
  rank), less the person's price sensitivity times how dear the item is within its kind: `World.affinity`,
  mean near 0, deviation near 1.
- Popularity follows a Zipf law and is independent of liking.
- People are active unevenly (a Pareto law), at their local hours (see `rhythm`), and differ by segment.

    >>> world = build(users=50, guests=10, items=200)
    >>> len(world.items.item_id), len(world.people), world.categories.path[0]
    (200, 60, ('Home & Kitchen', 'Cookware', 'frying pan'))
"""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.catalogue import BRANDS, COLOURS, MATERIALS, PLACES, SIZES, TREE

FACTORS = 8
SEGMENTS = ("bargain hunter", "enthusiast", "family", "newcomer", "occasional")
SEGMENT_SHARES = (0.22, 0.18, 0.24, 0.14, 0.22)
DEVICES_EACH = 2

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Categories:
    """The leaves of the category tree, C of them.

    Attributes:
        path: department, category and kind of item.
        median_price: euros, shape (C,).
        factors: latent factors of the kind, shape (C, FACTORS).
    """

    path: list[tuple[str, str, str]]
    median_price: Floats
    factors: Floats


@dataclass(frozen=True, slots=True)
class Items:
    """The catalogue, N items sorted by category.

    Attributes:
        item_id, title, brand, attributes: one per item; attributes are colour, material and size.
        category: index into `Categories`, shape (N,), ascending.
        price: euros, shape (N,).
        dearness: how dear the item is within its kind, in standard deviations of log price, shape (N,).
        popularity: chance to be looked at, sums to 1, shape (N,).
        factors: latent factors, shape (N, FACTORS).
    """

    item_id: list[str]
    title: list[str]
    brand: list[str]
    attributes: list[dict[str, str]]
    category: Ints
    price: Floats
    dearness: Floats
    popularity: Floats
    factors: Floats


@dataclass(frozen=True, slots=True)
class People:
    """Registered users first, then guests who never register; P in all.

    Attributes:
        user_id: empty for a guest.
        anonymous_id: one per person and device, shape (P, DEVICES_EACH).
        place: index into `PLACES`, shape (P,).
        segment: index into `SEGMENTS`, shape (P,).
        consent: 1 agreed to exact location, 0 refused, -1 was never asked, shape (P,).
        activity: relative number of visits, sums to 1, shape (P,).
        sensitivity: how much a dear item puts the person off, shape (P,).
        taste: shape (P, FACTORS).
        device_luck: uniform in [0, 1), picks the person's devices, shape (P, DEVICES_EACH).
    """

    user_id: list[str]
    anonymous_id: list[tuple[str, ...]]
    place: Ints
    segment: Ints
    consent: Ints
    activity: Floats
    sensitivity: Floats
    taste: Floats
    device_luck: Floats

    def __len__(self) -> int:
        return len(self.user_id)


@dataclass(frozen=True, slots=True)
class World:
    """The shop and its people. Two worlds built with the same numbers are the same."""

    seed: int
    users: int
    categories: Categories
    items: Items
    people: People

    def affinity(self, person: Ints, item: Ints) -> Floats:
        """How much each person likes each item; `person` must broadcast against `item`."""
        match = np.einsum("...f,...f->...", self.people.taste[person], self.items.factors[item])
        return match - self.people.sensitivity[person] * self.items.dearness[item]


def _zipf(rng: np.random.Generator, count: int, exponent: float) -> Floats:
    weights = 1.0 / np.power(np.arange(1, count + 1) + 2.0, exponent)
    return np.asarray(rng.permutation(weights / weights.sum()), np.float64)


def _categories(rng: np.random.Generator) -> Categories:
    path, prices, factors = [], [], []
    for department, categories in TREE.items():
        of_department = rng.normal(size=FACTORS)
        for category, kinds in categories.items():
            of_category = rng.normal(size=FACTORS)
            for kind, price in kinds:
                path.append((department, category, kind))
                prices.append(price)
                factors.append(of_department + 0.7 * of_category + 0.4 * rng.normal(size=FACTORS))
    centred = np.array(factors) - np.mean(factors, axis=0)
    return Categories(path, np.array(prices, float), centred)


def _items(rng: np.random.Generator, categories: Categories, count: int) -> Items:
    category = np.sort(rng.integers(len(categories.path), size=count))
    dearness = rng.normal(size=count)
    price = np.round(categories.median_price[category] * np.exp(0.35 * dearness)) - 0.01
    brand = [BRANDS[i] for i in rng.integers(len(BRANDS), size=count)]
    colour, material, size = (rng.integers(len(of), size=count) for of in (COLOURS, MATERIALS, SIZES))
    attributes = [
        {"colour": COLOURS[c], "material": MATERIALS[m], "size": SIZES[s]}
        for c, m, s in zip(colour, material, size, strict=True)
    ]
    title = [
        f"{brand[i]} {categories.path[leaf][2]}, {attributes[i]['colour']} {attributes[i]['material']}"
        for i, leaf in enumerate(category)
    ]
    factors = categories.factors[category] + 0.6 * rng.normal(size=(count, FACTORS))
    return Items(
        item_id=[f"p{i:05d}" for i in range(count)],
        title=title,
        brand=brand,
        attributes=attributes,
        category=category,
        price=np.maximum(price, 0.99),
        dearness=dearness,
        popularity=_zipf(rng, count, 1.0),
        factors=factors / np.sqrt((factors**2).mean()),
    )


def _people(rng: np.random.Generator, categories: Categories, users: int, guests: int) -> People:
    count = users + guests
    favourites = rng.integers(len(categories.path), size=(count, 3))
    pull = rng.dirichlet((2.0, 1.2, 0.6), size=count)
    taste = np.einsum("pk,pkf->pf", pull, categories.factors[favourites])
    taste += 0.35 * rng.normal(size=(count, FACTORS))
    taste *= 0.95 / np.sqrt((taste**2).sum(axis=1, keepdims=True))
    segment = rng.choice(len(SEGMENTS), size=count, p=SEGMENT_SHARES)
    thrift = np.array([0.9, 0.1, 0.45, 0.4, 0.3])[segment]
    activity = (1.0 + rng.pareto(1.6, size=count)) * np.array([1.1, 1.8, 1.0, 0.7, 0.4])[segment]
    weights = np.array([place.weight for place in PLACES])
    digits = rng.bytes(16 * count * DEVICES_EACH)
    ids = [str(UUID(bytes=digits[i : i + 16], version=4)) for i in range(0, len(digits), 16)]
    return People(
        user_id=[f"u{i:06d}" if i < users else "" for i in range(count)],
        anonymous_id=[tuple(ids[i : i + DEVICES_EACH]) for i in range(0, len(ids), DEVICES_EACH)],
        place=rng.choice(len(PLACES), size=count, p=weights / weights.sum()),
        segment=segment,
        consent=rng.choice([1, 0, -1], size=count, p=[0.72, 0.16, 0.12]),
        activity=activity / activity.sum(),
        sensitivity=thrift + 0.2 * rng.normal(size=count),
        taste=taste,
        device_luck=rng.random((count, DEVICES_EACH)),
    )


@lru_cache(maxsize=4)
def build(seed: int = 2026, users: int = 20_000, guests: int = 8_000, items: int = 4_000) -> World:
    """Build the world; the default is the one that every part of the storefront shares.

    Args:
        seed: another seed is another shop; the events of one shop differ by the seed of the plan instead.
        users: registered users.
        guests: people who never register.
        items: items in the catalogue.
    """
    rng = np.random.default_rng([seed, users, guests, items])
    categories = _categories(rng)
    return World(seed, users, categories, _items(rng, categories, items), _people(rng, categories, users, guests))
