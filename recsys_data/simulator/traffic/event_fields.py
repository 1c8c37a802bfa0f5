"""The fields that belong to each kind of event: lists, recommendations, queries, money, statements."""

from collections.abc import Callable

import numpy as np

from recsys_data.simulator.catalogue import COLOURS, MATERIALS, RATES, TAGS
from recsys_data.simulator.traffic.behaviour import KIND, Visit
from recsys_data.simulator.traffic.lists import LIST_KINDS, RECOMMENDED, Lists
from recsys_data.simulator.traffic.serialization import ClientFormat, quote
from recsys_data.simulator.world import World

CUSTOM = ("newsletter_signup", "coupon_applied", "chat_opened", "size_guide_opened", "store_finder_used")


def _list_fragments(world: World, rng: np.random.Generator, lists: Lists) -> tuple[list[str], list[str]]:
    """Per list: what its items carry, and the query that was typed."""
    digits = rng.bytes(6 * len(lists.kind)).hex()
    choices = rng.integers(1 << 30, size=len(lists.kind)).tolist()
    places, queries = [], []
    for i, (kind, leaf, choice) in enumerate(zip(lists.kind.tolist(), lists.category.tolist(), choices, strict=True)):
        name = digits[12 * i : 12 * i + 12]
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


class EventFields:
    """The fields that belong to a kind of event, as fragments with a leading comma."""

    def __init__(self, world: World, rng: np.random.Generator, visit: Visit, client: ClientFormat) -> None:
        events = visit.events
        self.world, self.client, self.kind = world, client, events.kind
        self.places, self.queries = _list_fragments(world, rng, visit.lists)
        self.price = world.items.price[events.item].tolist()  # of no item: never looked at
        self.session, self.list, self.position = (
            column.tolist() for column in (events.session, events.list, events.position)
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

    def _identify(self, i: int) -> str:
        return f',"traits":{{"plan":"{("free", "plus")[self.number[i] % 2]}","email_verified":true}}'

    def _alias(self, i: int) -> str:
        return f',"previous_id":"{self.client.anonymous_id[self.session[i]]}"'

    def _group(self, i: int) -> str:
        return f',"group_id":"household-{self.number[i] % 5000}","traits":{{"size":{2 + self.number[i] % 4}}}'

    def all(self) -> list[str]:
        """One fragment per event."""
        write: dict[str, Callable[[int], str]] = {
            **dict.fromkeys(("impression", "click", "view"), self._shown),
            "page_view": self._listed,
            "search": self._search,
            "dwell": self._dwell,
            "add_to_cart": self._cart,
            "purchase": self._order,
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
