"""What visitors do: the funnel from impressions to purchases, as one table of events without their serialization.

An item is clicked when it is looked at and found attractive (the position-based model). The chance of the first
depends on its position alone, `EXAMINATION`. That of the second, and of every later step, is a coin whose log odds
rise with affinity (`World.affinity`) and depend on the goal of the visit. A cart follows only from a click, an order
only from a cart.
Likes, ratings, bookmarks, time spent and depth scrolled follow affinity too, dislikes the other way. That is
what a model trained on the events can find.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from recsys_data.simulator.rhythm import DAY, SECOND
from recsys_data.simulator.traffic.lists import MOST_SHOWN, SEARCH, Decisions, Lists, Shown, fill, open_lists, running
from recsys_data.simulator.traffic.sessions import (
    ANONYMOUS,
    DEVICES,
    FAMILY,
    KNOWN,
    LOGS_IN,
    WORK,
    Bools,
    Floats,
    Ints,
    Sessions,
)
from recsys_data.simulator.world import World

KINDS = (
    "impression", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "refund", "rating", "like",
    "dislike", "search", "dwell", "scroll", "tag", "share", "bookmark", "page_view", "custom",
    "identify", "alias", "group",
)  # fmt: skip
KIND = {name: code for code, name in enumerate(KINDS)}
IDENTITIES_FROM = KIND["identify"]

# Chance that somebody looks at what is shown at position 1, 2, ...
EXAMINATION = 0.88 ** np.arange(MOST_SHOWN)
# Log odds by goal: browse, buy, compare, gift.
CLICK = np.array([-3.7, -3.3, -3.2, -3.5])
CLICK_BY_AFFINITY = 1.1
CART = np.array([-4.7, -2.8, -3.9, -3.0])
ORDER = np.array([-0.8, 0.7, -0.6, 0.6])
ON_DESKTOP = np.array([0.5 if device.type == "desktop" else 0.0 for device in DEVICES])


@dataclass(frozen=True, slots=True)
class Events:
    """N events, not in order; every array has shape (N,).

    Attributes:
        session: index of the session.
        time: when it happened by the clock of the visit, microseconds (late deliveries not yet shifted).
        kind: index into `KINDS`.
        item: index of the item, -1 for none.
        list: index of the list it was done in, -1 for none.
        position: place of the item in that list, from 1; 0 for none.
        shown: index of the item shown, of an impression; -1 of anything else.
        amount: pieces, score, milliseconds or share of the page, whatever the kind is about.
    """

    session: Ints
    time: Ints
    kind: Ints
    item: Ints
    list: Ints
    position: Ints
    shown: Ints
    amount: Floats

    def __len__(self) -> int:
        return len(self.session)

    def only(self, chosen: Bools) -> "Events":
        """The events that `chosen`, shape (N,), marks."""
        return Events(*(getattr(self, name)[chosen] for name in Events.__slots__))


@dataclass(frozen=True, slots=True)
class Visit:
    """All that was drawn for a block of sessions; `login_at` is when each visitor logged in, or far off."""

    sessions: Sessions
    lists: Lists
    shown: Shown
    decisions: Decisions
    events: Events
    login_at: Ints


class _Place(TypedDict):
    list: Ints
    position: Ints


def attraction(goal: Ints, affinity: Floats) -> Floats:
    """Probability of a click on what is looked at; `goal` must broadcast against `affinity`."""
    return 1 / (1 + np.exp(-(CLICK[goal] + CLICK_BY_AFFINITY * affinity)))


def happens(rng: np.random.Generator, log_odds: Floats) -> Bools:
    """Toss one coin per entry."""
    return rng.random(log_odds.shape) * (1 + np.exp(-log_odds)) < 1


@dataclass(frozen=True, slots=True)
class _Clicks:
    """C clicks, by list and time; arrays of shape (C,), `at` and `dwell` in microseconds."""

    session: Ints
    list: Ints
    item: Ints
    position: Ints
    affinity: Floats
    at: Ints
    dwell: Ints


class _Funnel:
    """The steps of one block of sessions; each adds its events to `parts`."""

    def __init__(self, world: World, rng: np.random.Generator, sessions: Sessions) -> None:
        self.rng = rng
        self.sessions = sessions
        self.lists = open_lists(world, rng, sessions)
        self.parts: list[list[np.ndarray]] = []
        self.shown, self.decisions = fill(world, rng, sessions, self.lists)
        self.clicks = self._click(self.shown)
        self._look(self.shown)
        self._read()
        self._judge()
        self._order()
        self.login_at = self._login()

    def _add(
        self,
        kind: str,
        session: Ints,
        time: Ints,
        item: Ints | int = -1,
        *,
        list: Ints | int = -1,
        position: Ints | int = 0,
        shown: Ints | int = -1,
        amount: Ints | Floats | float = 0.0,
        only: Bools | None = None,
    ) -> None:
        """Add one event per session given, or those that `only` marks."""
        columns = (session, time, KIND[kind], item, list, position, shown)
        typed = [np.asarray(column, np.int64) for column in columns] + [np.asarray(amount, np.float64)]
        whole = [np.broadcast_to(column, session.shape) for column in typed]
        self.parts.append(whole if only is None else [column[only] for column in whole])

    def _click(self, shown: Shown) -> _Clicks:
        """Choose the clicks and the time each takes, hence when lists open and visits end."""
        rng, lists, sessions = self.rng, self.lists, self.sessions
        chance = attraction(sessions.goal[lists.session[shown.list]], shown.affinity)
        does = rng.random(len(chance)) < EXAMINATION[shown.position - 1] * chance
        shelf, affinity = shown.list[does], shown.affinity[does]
        of = lists.session[shelf]
        patience = np.where(sessions.mode == FAMILY, 1.3, np.where(sessions.mode == WORK, 0.6, 1.0))[of]
        seconds = np.exp(3.0 + 0.3 * affinity + 0.8 * rng.normal(size=len(of))) * patience
        dwell = (np.clip(seconds, 1, 900) * 1000).astype(np.int64) * (SECOND // 1000)
        pause = 3 * SECOND
        spent = (SECOND * (4 + rng.gamma(3.0, 2.5, size=len(lists.kind)))).astype(np.int64)
        np.add.at(spent, shelf, dwell + pause)
        self.opened = sessions.start[lists.session] + running(spent, lists.session)
        self.end = np.zeros(len(sessions), np.int64)
        np.maximum.at(self.end, lists.session, self.opened + spent)
        at = self.opened[shelf] + pause + running(dwell + pause, shelf)
        return _Clicks(of, shelf, shown.item[does], shown.position[does], affinity, at, dwell)

    def _look(self, shown: Shown) -> None:
        """Searches, pages and what they show."""
        lists, number = self.lists, np.arange(len(self.lists.kind))
        search = lists.kind == SEARCH
        self._add("search", lists.session, self.opened, list=number, only=search)
        self._add("page_view", lists.session, self.opened, list=number, only=~search)
        at = self.opened[shown.list] + SECOND * 4 // 10 + shown.position * SECOND // 20
        of = lists.session[shown.list]
        number = np.arange(len(of))
        self._add("impression", of, at, shown.item, list=shown.list, position=shown.position, shown=number)

    def _read(self) -> None:
        """Clicks, and what happens on the page of the item."""
        rng, clicks = self.rng, self.clicks
        place: _Place = {"list": clicks.list, "position": clicks.position}
        viewed = clicks.at + SECOND // 3
        left = viewed + clicks.dwell
        self._add("click", clicks.session, clicks.at, clicks.item, **place)
        self._add("view", clicks.session, viewed, clicks.item, **place)
        self._add("dwell", clicks.session, left, clicks.item, amount=clicks.dwell / 1000, **place)
        depth = 1 / (1 + np.exp(-(0.1 + 0.5 * clicks.affinity + rng.normal(size=len(left)))))
        moment = viewed + (clicks.dwell * 0.7).astype(np.int64)
        scrolled = rng.random(len(left)) < 0.8
        self._add("scroll", clicks.session, moment, clicks.item, amount=depth, only=scrolled)

    def _judge(self) -> None:
        """Explicit signals."""
        rng, clicks = self.rng, self.clicks
        size, affinity = len(clicks.item), clicks.affinity
        stars = np.clip(np.round(6.4 + 1.6 * affinity + 1.2 * rng.normal(size=size)) / 2, 0, 5)
        log_odds = {
            "like": -5.2 + 0.9 * affinity,
            "dislike": -3.3 - 0.9 * affinity,
            "rating": np.full(size, -3.9),
            "bookmark": -5.0 + 0.7 * affinity,
            "share": -5.6 + 0.6 * affinity,
            "tag": np.full(size, -4.8),
        }
        for kind, odds in log_odds.items():
            moment = clicks.at + (clicks.dwell * rng.uniform(0.3, 0.95, size=size)).astype(np.int64)
            self._add(kind, clicks.session, moment, clicks.item, amount=stars, only=happens(rng, odds))

    def _order(self) -> None:
        """Carts, orders and refunds."""
        rng, clicks, sessions = self.rng, self.clicks, self.sessions
        of, item = clicks.session, clicks.item
        carted = happens(rng, CART[sessions.goal[of]] + 0.9 * clicks.affinity)
        pieces = np.minimum(rng.geometric(0.8, size=len(of)), 5)
        at = clicks.at + (clicks.dwell * 0.85).astype(np.int64)
        place: _Place = {"list": clicks.list, "position": clicks.position}
        self._add("add_to_cart", of, at, item, amount=pieces, only=carted, **place)
        regrets = carted & happens(rng, -1.7 - 0.5 * clicks.affinity)
        self._add("remove_from_cart", of, (at + self.end[of]) // 2, item, amount=pieces, only=regrets)
        orders = happens(rng, ORDER[sessions.goal] + ON_DESKTOP[sessions.device])
        orders &= sessions.login != ANONYMOUS  # an order needs an account
        bought = carted & ~regrets & orders[of]
        paid = self.end[of] + 20 * SECOND
        self._add("purchase", of, paid, item, list=clicks.list, amount=pieces, only=bought)
        returned = bought & (rng.random(len(of)) < 0.07) & (sessions.late_days[of] == 0)
        after = (DAY * (0.4 + rng.gamma(2.0, 1.8, size=len(of)))).astype(np.int64)
        self._add("refund", of, paid + after, item, amount=pieces, only=returned)

    def _login(self) -> Ints:
        """Identity statements, and now and then an event of the client's own making; returns the logins."""
        rng, sessions, everybody = self.rng, self.sessions, np.arange(len(self.sessions))
        logs_in = sessions.login == LOGS_IN
        share = rng.random(len(sessions))
        within = sessions.start + 2 * SECOND + (share * (self.end - sessions.start)).astype(np.int64)
        for kind, chance, seconds in (("identify", 1.0, 0), ("alias", 0.04, 1), ("group", 0.05, 2)):
            says = logs_in & (rng.random(len(sessions)) < chance)
            self._add(kind, everybody, within + seconds * SECOND, only=says)
        self._add("custom", everybody, self.end - 2 * SECOND, only=rng.random(len(sessions)) < 0.06)
        never = np.iinfo(np.int64).max
        return np.where(logs_in, within, np.where(sessions.login == KNOWN, 0, never))


def behave(world: World, rng: np.random.Generator, sessions: Sessions) -> Visit:
    """Let each session run its course."""
    funnel = _Funnel(world, rng, sessions)
    columns = [np.concatenate(column) for column in zip(*funnel.parts, strict=True)]
    return Visit(sessions, funnel.lists, funnel.shown, funnel.decisions, Events(*columns), funnel.login_at)
