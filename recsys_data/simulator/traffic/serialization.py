"""Client serialization: how the client of each visit writes its events, as ready-made fragments of JSON.

Clients differ on purpose, in ways that a reader of real events must accept: ids that are not UUIDs, clocks that
are off, timestamps with offsets, extra fields, contexts that are missing or null, coordinates sent without consent.
"""

import json
from dataclasses import dataclass

import numpy as np

from recsys_data.simulator.catalogue import PLACES, Place
from recsys_data.simulator.traffic.sessions import DEVICES, GOALS, MODES, Bools, Device, Ints, Sessions, pick
from recsys_data.simulator.world import World

MILLISECONDS, MICROSECONDS, SECONDS, LOCAL = range(4)
CLOCKS = np.array([[0.94, 0.02, 0.02, 0.02]])
PLAIN, SPACED_ESCAPED, ESCAPED, SPACED, NULLS = range(5)
DIALECTS = np.array([[0.89, 0.04, 0.02, 0.02, 0.03]])
WITH_CONTEXT, WITHOUT_CONTEXT, NULL_CONTEXT = range(3)
CONTEXTS = np.array([[0.955, 0.03, 0.015]])

# What some clients send beyond the contract, at the top, in the context and as properties, and how many do.
EXTRA_TOP = [
    ',"channel":"client"',
    ',"schema_version":3',
    ',"library":{"name":"analytics.js","version":"2.11.1"}',
    ',"integrations":{"All":true,"Newsletter":false}',
]
EXTRA_CONTEXT = [
    ',"screen":{"width":1170,"height":2532,"density":3}',
    ',"viewport":[1440,789]',
    ',"accessibility":{"reduced_motion":true}',
    ',"build":"größer-2.0"',
]
PROPERTIES = [
    ',"properties":{"experiment":"ranking","arm":"b"}',
    ',"properties":{"grid":4,"dark_mode":true}',
    ',"properties":{"note":"Überraschung für Zoë","tags":["a","b"],"depth":{"x":[1,2.5,null]}}',
]
WITH_EXTRA_TOP, WITH_EXTRA_CONTEXT, WITH_PROPERTIES = 0.12, 0.12, 0.4
CAMPAIGNS = [
    ("newsletter", "email", "november"),
    ("search", "cpc", "brand"),
    ("social", "paid", "gift guide"),
    ("partner", "affiliate", "réduction"),
]
REFERRERS = ["", "", "https://search.example/", "https://social.example/p/81", "https://mail.example/inbox"]
BROWSER_NAMES = {
    "Chrome": "Chrome/131.0.0.0",
    "Safari": "Version/18.1 Safari/605",
    "Firefox": "Firefox/133.0",
}


def quote(text: str) -> str:
    """The JSON spelling of a text, non-ASCII characters as they are."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ClientFormat:
    """One entry per session.

    Attributes:
        session_id, source, currency, order_id: plain values.
        anonymous, known: the actor before and after the login, e.g. `"user_id":"u1","anonymous_id":"…"`.
        anonymous_id, user_id: plain values; `user_id` is empty for a guest.
        id_prefix: put before event ids; `upper` says whether their digits are upper case.
        top: fragment of extra fields and properties, empty or with a leading comma.
        full, short: fragments of the context, the short one for impressions, with a leading comma.
        agreed: consent to exact location is given.
        exposed: the full context carries coordinates without that consent.
        clock: how timestamps are written; `skew` is how far the client's clock was off, in microseconds.
        dialect: the habits of its JSON.
        context: whether there is any.
    """

    session_id: list[str]
    source: list[str]
    currency: list[str]
    order_id: list[str]
    anonymous: list[str]
    known: list[str]
    anonymous_id: list[str]
    user_id: list[str]
    id_prefix: list[str]
    upper: list[bool]
    top: list[str]
    full: list[str]
    short: list[str]
    agreed: Bools
    exposed: Bools
    clock: Ints
    skew: Ints
    dialect: Ints
    context: Ints


def _one_of(fragments: list[str], draw: float) -> str:
    """A fragment for `draw` in [0, 1), nothing from 1 on."""
    return fragments[int(draw * len(fragments))] if draw < 1 else ""


def _user_agent(device: Device) -> str:
    if device.app:
        return f"{device.app}/8.4.1 ({device.model}; {device.os} {device.os_version})"
    name = BROWSER_NAMES.get(device.browser, "Edg/131.0.0.0")
    return f"Mozilla/5.0 ({device.os} {device.os_version}) {name}"


def _device(device: Device) -> str:
    maker = f'"manufacturer":"{device.manufacturer}",' if device.manufacturer else ""
    model = f'"model":"{device.model}",' if device.model else ""
    browser = f',"browser":"{device.browser}"' if device.browser else ""
    app = f',"app":{{"name":"{device.app}","version":"8.4.1"}}' if device.app else ""
    return (
        f',"device":{{"type":"{device.type}",{maker}{model}"os":"{device.os}","os_version":"{device.os_version}"'
        f'{browser}}}{app},"user_agent":"{_user_agent(device)}"'
    )


DEVICE_FULL = [_device(device) for device in DEVICES]
DEVICE_SHORT = [f',"device":{{"type":"{device.type}","os":"{device.os}"}}' for device in DEVICES]
SOURCES = ["web" if not device.app else device.os.lower() for device in DEVICES]
PLACE_NAMES = [
    f'"country":"{p.country}","region":{quote(p.region)},"city":{quote(p.city)}' for p in PLACES
]  # fmt: skip


def _location(place: Place, names: str, consent: int, draws: list[float]) -> tuple[str, bool]:
    """The consent and location fragments, and whether coordinates are exposed without consent."""
    if consent == 1:
        coordinates = f',"lat":{place.lat + draws[0] / 5:.5f},"lon":{place.lon + draws[1] / 5:.5f}'
    elif draws[0] < 0.03:
        coordinates = ',"lat":999,"lon":999'  # a broken receiver; nobody may look, so it is not a fault
    elif draws[0] < 0.35:
        coordinates = f',"lat":{place.lat:.2f},"lon":{place.lon:.2f}'
    else:
        coordinates = ""
    agreed = "" if consent == -1 else f',"consent":{{"location":{"true" if consent else "false"}}}'
    return f'{agreed},"location":{{{names}{coordinates}}}', consent != 1 and coordinates != ""


def _address(draws: list[float]) -> str:
    if draws[2] < 0.12:
        return f"2001:db8:{int(draws[3] * 65535):x}::{int(draws[1] * 65535):x}"
    block = ("192.0.2", "198.51.100", "203.0.113")[int(draws[2] * 3)]
    return f"{block}.{int(draws[3] * 254) + 1}"


def _contexts(world: World, sessions: Sessions, index: int, draws: list[float]) -> tuple[str, str, bool]:
    """The full and the short context of one session, and whether the full one exposes coordinates."""
    person, device = int(sessions.person[index]), int(sessions.device[index])
    where = int(world.people.place[person])
    place = PLACES[where]
    location, exposed = _location(place, PLACE_NAMES[where], int(world.people.consent[person]), draws)
    goal = f',"session":{{"goal":"{GOALS[sessions.goal[index]]}","mode":"{MODES[sessions.mode[index]]}"}}'
    campaign = ""
    if draws[4] < 0.18:
        source, medium, name = CAMPAIGNS[int(draws[5] * len(CAMPAIGNS))]
        campaign = f',"campaign":{{"source":"{source}","medium":"{medium}","name":"{name}"}}'
    referrer = REFERRERS[int(draws[6] * len(REFERRERS))]
    came = f',"referrer":"{referrer}"' if referrer else ""
    network = "wifi" if draws[7] < 0.6 or DEVICES[device].type in ("desktop", "tv") else "cellular"
    head = f',"timezone":"{place.timezone}"'
    full = (
        f'{head}{DEVICE_FULL[device]}{came},"locale":"{place.locale}","network":"{network}"{campaign}{goal}'
        f',"ip":"{_address(draws)}"{location}{_one_of(EXTRA_CONTEXT, draws[8] / WITH_EXTRA_CONTEXT)}'
    )
    return full, f"{head}{DEVICE_SHORT[device]}{goal}", exposed


def client_format(world: World, rng: np.random.Generator, sessions: Sessions) -> ClientFormat:
    """Draw the client of each session."""
    size = len(sessions)
    people = world.people
    draws = rng.random((size, 9)).tolist()
    digits = rng.bytes(11 * size).hex()
    names = [digits[i : i + 22] for i in range(0, len(digits), 22)]
    context = [_contexts(world, sessions, i, draws[i]) for i in range(size)]
    user = [people.user_id[person] for person in sessions.person]
    visitor = [people.anonymous_id[p][s] for p, s in zip(sessions.person, sessions.slot, strict=True)]
    extra, properties = rng.random((2, size))
    ajs = rng.random(size) < 0.10
    devices = [DEVICES[device] for device in sessions.device]
    return ClientFormat(
        session_id=[f"s-{name[:12]}" for name in names],
        source=[SOURCES[device] for device in sessions.device],
        currency=[PLACES[place].currency for place in people.place[sessions.person]],
        order_id=[f"o-{name[12:]}" for name in names],
        anonymous=[f'"anonymous_id":"{v}"' for v in visitor],
        known=[f'"user_id":"{u}","anonymous_id":"{v}"' for u, v in zip(user, visitor, strict=True)],
        anonymous_id=visitor,
        user_id=user,
        id_prefix=[
            f"ajs-next-{ms}-" if odd and not device.app else ""
            for ms, odd, device in zip((sessions.start // 1000).tolist(), ajs, devices, strict=True)
        ],
        upper=[device.os == "iOS" and bool(device.app) for device in devices],
        top=[
            _one_of(EXTRA_TOP, a / WITH_EXTRA_TOP) + _one_of(PROPERTIES, b / WITH_PROPERTIES)
            for a, b in zip(extra, properties, strict=True)
        ],
        full=[full for full, _, _ in context],
        short=[short for _, short, _ in context],
        agreed=people.consent[sessions.person] == 1,
        exposed=np.array([exposed for _, _, exposed in context], bool),
        clock=pick(rng, np.repeat(CLOCKS, size, axis=0)),
        skew=np.where(rng.random(size) < 0.02, rng.integers(-90, 90, size=size) * 10_000_000, 0),
        dialect=pick(rng, np.repeat(DIALECTS, size, axis=0)),
        context=pick(rng, np.repeat(CONTEXTS, size, axis=0)),
    )
