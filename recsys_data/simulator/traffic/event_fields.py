"""The fields that belong to each kind of event: lists, recommendations, queries, money, statements."""

from collections.abc import Callable

import numpy as np

from recsys_data.simulator.catalogue import COLOURS, MATERIALS, RATES, TAGS
from recsys_data.simulator.rhythm import SECOND
from recsys_data.simulator.shop.assortment import prices
from recsys_data.simulator.traffic.behaviour import KIND, Visit
from recsys_data.simulator.traffic.lists import LIST_KINDS, MODELS, RECOMMENDED, VARIANTS, Lists, variant_of
from recsys_data.simulator.traffic.serialization import ClientFormat, quote
from recsys_data.simulator.world import World

CUSTOM = ("newsletter_signup", "coupon_applied", "chat_opened", "size_guide_opened", "store_finder_used")


def _list_fragments(world: World, rng: np.random.Generator, lists: Lists) -> tuple[list[str], list[str]]:
    """Per list: what its items carry, and the query that was typed."""
    choices = rng.integers(1 << 30, size=len(lists.kind)).tolist()
    places, queries = [], []
    columns = (lists.kind.tolist(), lists.category.tolist(), choices, lists.name)
    for kind, leaf, choice, name in zip(*columns, strict=True):
        department, category, thing = world.categories.path[leaf]
        brand = world.items.brand[choice % len(world.items.brand)]
        colour, material = COLOURS[choice % len(COLOURS)], MATERIALS[choice % len(MATERIALS)]
        asked = (
            thing,
            f"{brand} {thing}",
            f"{colour} {thing}",
            f"{thing} {material}",
            category,
            f"{thing}s {department}",
        )
        queries.append(quote(asked[(choice >> 8) % len(asked)]))
        if RECOMMENDED[kind]:
            places.append(f',"list_id":"{LIST_KINDS[kind]}","recommendation_id":"rec-{name}"')
        elif LIST_KINDS[kind] == "search":
            places.append(f',"list_id":"search-{name}"')
        else:
            places.append(f',"list_id":"category/{leaf}"')
    return places, queries


def _recommendation_fragments(lists: Lists) -> list[str]:
    """Per list: its recommendation, empty where it is none."""
    made = RECOMMENDED[lists.kind].tolist()
    return [f',"recommendation_id":"rec-{name}"' if of else "" for of, name in zip(made, lists.name, strict=True)]


def _ranked_fragments(world: World, visit: Visit) -> list[str]:
    """Per item shown: by which model, for which variant, with which score and propensity; empty if by none."""
    shown = visit.shown
    fragments = [""] * len(shown.item)
    at = np.flatnonzero(~np.isnan(shown.propensity))
    variant = variant_of(world, visit.sessions.person[visit.lists.session[shown.list[at]]])
    by = [f',"model":"{model}","variant":"{name}","score":' for model, name in zip(MODELS, VARIANTS, strict=True)]
    columns = (at, variant, shown.score[at], shown.propensity[at])
    for i, of, score, propensity in zip(*(column.tolist() for column in columns), strict=True):
        fragments[i] = f'{by[of]}{score},"propensity":{propensity}'
    return fragments


class EventFields:
    """The fields that belong to a kind of event, as fragments with a leading comma."""

    def __init__(self, world: World, rng: np.random.Generator, visit: Visit, client: ClientFormat) -> None:
        events = visit.events
        self.world, self.client, self.kind = world, client, events.kind
        self.recommendation = _recommendation_fragments(visit.lists)
        self.places, self.queries = _list_fragments(world, rng, visit.lists)
        self.ranked = _ranked_fragments(world, visit)
        # Of no item: never looked at.
        self.price = (prices(world, events.item.astype(np.int64), events.time // SECOND) / 100).tolist()
        self.session, self.list, self.position, self.item_shown = (
            column.tolist() for column in (events.session, events.list, events.position, events.shown)
        )
        self.amount = events.amount.tolist()
        self.number = rng.integers(1 << 30, size=len(events)).tolist()

    def _money(self, i: int, pieces: int) -> str:
        currency = self.client.currency[self.session[i]]
        rate, decimals = RATES[currency]
        price = round(self.price[i] * rate, decimals)
        value = round(price * pieces, decimals)
        money = f'"price":{price:.{decimals}f},"currency":"{currency}","value":{value:.{decimals}f}'
        return f',"quantity":{pieces},{money}'

    def _shown(self, i: int) -> str:
        return f'{self.places[self.list[i]]},"position":{self.position[i]}'

    def _impression(self, i: int) -> str:
        return self._shown(i) + self.ranked[self.item_shown[i]]

    def _listed(self, i: int) -> str:
        return self.places[self.list[i]]

    def _search(self, i: int) -> str:
        return f'{self._listed(i)},"query":{self.queries[self.list[i]]}'

    def _dwell(self, i: int) -> str:
        return f'{self._shown(i)},"dwell_ms":{int(self.amount[i])}'

    def _cart(self, i: int) -> str:
        return self._shown(i) + self._money(i, int(self.amount[i]))

    def _order(self, i: int) -> str:
        order = self.client.order_id[self.session[i]]
        return f',"order_id":"{order}"{self._money(i, int(self.amount[i]))}'

    def _purchase(self, i: int) -> str:
        return self._order(i) + self.recommendation[self.list[i]]

    def _identify(self, i: int) -> str:
        return f',"traits":{{"plan":"{("free", "plus")[self.number[i] % 2]}","email_verified":true}}'

    def _alias(self, i: int) -> str:
        return f',"previous_id":"{self.client.anonymous_id[self.session[i]]}"'

    def _group(self, i: int) -> str:
        return f',"group_id":"household-{self.number[i] % 5000}","traits":{{"size":{2 + self.number[i] % 4}}}'

    def all(self) -> list[str]:
        """One fragment per event."""
        write: dict[str, Callable[[int], str]] = {
            "impression": self._impression,
            **dict.fromkeys(("click", "view"), self._shown),
            "page_view": self._listed,
            "search": self._search,
            "dwell": self._dwell,
            "add_to_cart": self._cart,
            "purchase": self._purchase,
            "refund": self._order,
            "remove_from_cart": lambda i: f',"quantity":{int(self.amount[i])}',
            "scroll": lambda i: f',"scroll_depth":{self.amount[i]:.3f}',
            "rating": lambda i: f',"rating":{self.amount[i]:g}',
            "tag": lambda i: f',"tag":{quote(TAGS[self.number[i] % len(TAGS)])}',
            "custom": lambda i: f',"event_name":"{CUSTOM[self.number[i] % len(CUSTOM)]}"',
            "identify": self._identify,
            "alias": self._alias,
            "group": self._group,
        }
        fragments = [""] * len(self.kind)
        for kind, one in write.items():
            for i in np.nonzero(self.kind == KIND[kind])[0].tolist():
                fragments[i] = one(i)
        return fragments
