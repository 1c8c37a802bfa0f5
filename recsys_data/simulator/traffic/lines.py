"""Events to lines: each event of a visit becomes a JSON object, next to what the accounting must know of it.

Numbers are drawn per block with numpy; the text is put together from the fragments of `serialization`.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys_data.simulator.rhythm import DAY, SECOND
from recsys_data.simulator.traffic.behaviour import IDENTITIES_FROM, KIND, KINDS, Visit
from recsys_data.simulator.traffic.event_fields import EventFields
from recsys_data.simulator.traffic.rows import Rows, empty
from recsys_data.simulator.traffic.serialization import (
    ESCAPED,
    LOCAL,
    MICROSECONDS,
    MILLISECONDS,
    NULL_CONTEXT,
    NULLS,
    PLAIN,
    SECONDS,
    SPACED,
    SPACED_ESCAPED,
    WITH_CONTEXT,
    ClientFormat,
    client_format,
)
from recsys_data.simulator.traffic.sessions import Bools, Ints
from recsys_data.simulator.world import World

LIST_PAGES = ("home", "search", "category", "home", "item")
PAGES = {
    **dict.fromkeys(("view", "dwell", "scroll", "rating", "like", "dislike", "tag", "share", "bookmark"), "item"),
    "add_to_cart": "item",
    "remove_from_cart": "cart",
    "purchase": "checkout",
    "refund": "account",
    "identify": "login",
    "alias": "login",
    "group": "account",
    "custom": "home",
}
BACKEND_DELAY = SECOND // 20


def spell(times: Ints, clock: Ints, offset: Ints) -> list[str]:
    """Write times (microseconds, UTC) as RFC 3339 in each client's own way; arrays of shape (n,)."""
    moments = times.astype("datetime64[us]")
    text = np.datetime_as_string(moments.astype("datetime64[ms]"), unit="ms").tolist()
    text = [f"{one}Z" for one in text]
    for way, unit in ((MICROSECONDS, "us"), (SECONDS, "s")):
        at = np.nonzero(clock == way)[0]
        for i, one in zip(at, np.datetime_as_string(moments[at].astype(f"datetime64[{unit}]")), strict=True):
            text[i] = f"{one}Z"
    at = np.nonzero(clock == LOCAL)[0]
    local = (times[at] + offset[at]).astype("datetime64[us]").astype("datetime64[ms]")
    for i, one in zip(at, np.datetime_as_string(local), strict=True):
        minutes = int(offset[i]) // (60 * SECOND)
        hours, rest = divmod(abs(minutes), 60)
        text[i] = f"{one}{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}"
    return text


def _event_ids(rng: np.random.Generator, session: list[int], client: ClientFormat) -> list[str]:
    digits = rng.bytes(16 * len(session)).hex()
    ids = []
    for i, s in enumerate(session):
        h = digits[32 * i : 32 * i + 32]
        one = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
        ids.append(client.id_prefix[s] + (one.upper() if client.upper[s] else one))
    return ids


def _reword(line: str, dialect: int) -> str:
    """The same event as another JSON library writes it."""
    event = json.loads(line)
    if dialect == NULLS:
        event = dict.fromkeys(("user_id", "rating", "tag", "query", "order_id", "value"), None) | event
    tight = None if dialect in (SPACED, SPACED_ESCAPED) else (",", ":")
    return json.dumps(event, ensure_ascii=dialect in (ESCAPED, SPACED_ESCAPED), separators=tight)


class _Clocks:
    """Times of each event, in microseconds as precise as the client writes them, and their spelling."""

    def __init__(self, rng: np.random.Generator, visit: Visit, client: ClientFormat, backend: Bools) -> None:
        events, sessions = visit.events, visit.sessions
        clock = np.where(backend, MILLISECONDS, client.clock[events.session])
        grain = np.array([SECOND // 1000, 1, SECOND, SECOND // 1000])[clock]
        offset = sessions.offset[events.session]
        wait = (rng.exponential(2.0, size=len(events)) * SECOND).astype(np.int64) + BACKEND_DELAY
        happened = events.time - sessions.late_days[events.session] * DAY
        self.event = happened // grain * grain
        self.arrival = events.time + np.where(backend, BACKEND_DELAY, wait)
        self.event_text = spell(self.event, clock, offset)
        sent = spell(self.arrival // grain * grain, clock, offset)
        self.sent = ["" if quiet else f',"sent_at":"{one}"' for quiet, one in zip(backend, sent, strict=True)]
        skew = client.skew[events.session]
        self.client = [""] * len(events)
        wrong = np.nonzero((skew != 0) & ~backend)[0]
        for i, one in zip(wrong, spell(self.event[wrong] + skew[wrong], clock[wrong], offset[wrong]), strict=True):
            self.client[i] = f',"client_event_ts":"{one}"'


def _contexts(visit: Visit, client: ClientFormat, backend: Bools) -> list[str]:
    """The context fragment of each event, empty where it carries none."""
    pages = [LIST_PAGES[kind] for kind in visit.lists.kind]
    events = visit.events
    state = np.where(backend, -1, client.context[events.session])
    columns = (events.session, events.kind, events.list, state)
    fragments = []
    for session, kind, shelf, way in zip(*(column.tolist() for column in columns), strict=True):
        name = KINDS[kind]
        if way == WITH_CONTEXT:
            page = PAGES.get(name) or pages[shelf]
            fragment = client.short[session] if name == "impression" else client.full[session]
            url = f',"url":"https://shop.example/{page}"' if client.source[session] == "web" else ""
            fragments.append(f',"context":{{"page":"{page}"{url}{fragment}}}')
        else:
            fragments.append(',"context":null' if way == NULL_CONTEXT else "")
    return fragments


def render(world: World, rng: np.random.Generator, visit: Visit) -> Rows:
    """Write every event of `visit` as a line, in no order.

    Orders of some visits and all refunds are sent by the shop's backend: no context, no `sent_at`, no delay.

    Returns:
        one row per event, every outcome 0 (accepted).
    """
    events, sessions = visit.events, visit.sessions
    client = client_format(world, rng, sessions)
    quiet = (rng.random(len(sessions)) < 0.4) & (sessions.late_days == 0)
    backend = (events.kind == KIND["refund"]) | ((events.kind == KIND["purchase"]) & quiet[events.session])
    clocks = _Clocks(rng, visit, client, backend)
    details = EventFields(world, rng, visit, client).all()
    contexts = _contexts(visit, client, backend)
    known = events.time >= visit.login_at[events.session]
    session, item_ids = events.session.tolist(), world.items.item_id
    ids = _event_ids(rng, session, client)
    lines = []
    for i, (s, kind, item, by_backend, by_user) in enumerate(
        zip(session, events.kind.tolist(), events.item.tolist(), backend.tolist(), known.tolist(), strict=True)
    ):
        actor = (client.known if by_user else client.anonymous)[s]
        thing = f',"item_id":"{item_ids[item]}"' if item >= 0 else ""
        source = "backend" if by_backend else client.source[s]
        lines.append(
            f'{{"event_id":"{ids[i]}","type":"{KINDS[kind]}",{actor},"session_id":"{client.session_id[s]}"{thing}'
            f',"event_ts":"{clocks.event_text[i]}"{clocks.client[i]}{clocks.sent[i]}{details[i]}'
            f',"source":"{source}"{client.top[s]}{contexts[i]}}}'
        )
    dialect = client.dialect[events.session]
    for i in np.nonzero(dialect != PLAIN)[0].tolist():
        lines[i] = _reword(lines[i], int(dialect[i]))

    rows = empty(len(events))
    rows.lines[:] = [line.encode() for line in lines]
    _note_facts(rows.facts, visit, clocks, client, backend)
    return rows


def _note_facts(facts: npt.NDArray[Any], visit: Visit, clocks: "_Clocks", client: ClientFormat, backend: Bools) -> None:
    """What is true of each event, for those who count what became of it."""
    events, sessions = visit.events, visit.sessions
    known = events.time >= visit.login_at[events.session]
    facts["arrival"], facts["event"], facts["kind"] = clocks.arrival, clocks.event, events.kind
    facts["context"] = ~backend & (client.context[events.session] == WITH_CONTEXT)
    full = facts["context"] & (events.kind != KIND["impression"])
    facts["redacted"] = full & ~client.agreed[events.session]
    facts["exposed"] = full & client.exposed[events.session]
    facts["late"] = sessions.late_days[events.session] > 0
    facts["user"] = np.where(known & (events.kind < IDENTITIES_FROM), sessions.person[events.session], -1)
    facts["item"] = events.item
