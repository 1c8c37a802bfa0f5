"""Which anonymous ids belong to a user, and when: kept in the online store by anonymous id and by user."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

Get = Callable[[Sequence[bytes]], list[bytes | None]]
# Known from, and user; None ends a merge.
Merge = tuple[int, str | None]
# Anonymous id, from when, until before when; None: still.
Owned = tuple[str, int, int | None]

# No feature view has such a name.
OWNER, MERGES = "#owner", "#merges"

_merges, _owned = msgspec.msgpack.Decoder(list[Merge]), msgspec.msgpack.Decoder(list[Owned])


def owner_key(user: str) -> bytes:
    return msgspec.msgpack.encode((OWNER, user))


def _merges_key(anonymous: str) -> bytes:
    return msgspec.msgpack.encode((MERGES, anonymous))


def owned_at(stored: bytes | None, moment: int) -> list[str]:
    """The anonymous ids that belong to a user at a moment, from the value of `owner_key`."""
    return [
        anonymous
        for anonymous, since, until in (_owned.decode(stored) if stored else ())
        if since <= moment and (until is None or moment < until)
    ]


def changed(get: Get, merges: Iterable[tuple[str, str | None, int]]) -> dict[bytes, bytes]:
    """What has to be written when merges become known.

    Args:
        get: reads the store.
        merges: anonymous id, user, moment in microseconds.
    """
    new: dict[str, set[Merge]] = {}
    for anonymous, user, moment in merges:
        new.setdefault(anonymous, set()).add((moment, user))
    keys = [_merges_key(anonymous) for anonymous in new]
    values: dict[bytes, bytes] = {}
    intervals: dict[str, dict[str, list[Owned]]] = {}
    for (anonymous, added), key, stored in zip(new.items(), keys, get(keys), strict=True):
        before = set(_merges.decode(stored)) if stored else set()
        ordered = sorted(before | added, key=lambda one: (one[0], one[1] is not None, one[1] or ""))
        values[key] = msgspec.msgpack.encode(ordered)
        for user in {user for _, user in ordered if user is not None}:
            intervals.setdefault(user, {})[anonymous] = []
        for (since, user), (until, _) in zip(ordered, [*ordered[1:], (None, None)], strict=True):
            if user is not None and since != until:
                intervals[user][anonymous].append((anonymous, since, until))
    users = [owner_key(user) for user in intervals]
    for (_, owned), key, stored in zip(intervals.items(), users, get(users), strict=True):
        before_ = [one for one in (_owned.decode(stored) if stored else ()) if one[0] not in owned]
        values[key] = msgspec.msgpack.encode(sorted([*before_, *(one for listed in owned.values() for one in listed)]))
    return values
