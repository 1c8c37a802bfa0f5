"""Reads features from the online store: all of them as of one position, with the moment whose values they are."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_data.errors import Transient, UserError
from recsys_data.serving.online import histories
from recsys_data.serving.online.gather import ANONYMOUS, KNOWN, key_of
from recsys_data.serving.online.layout import Layout, OnlineView
from recsys_data.serving.online.owners import owned_at, owner_key
from recsys_data.serving.online.pieces import decoded
from recsys_data.serving.online.position import KEY, Position, decode
from recsys_data.serving.online.values import Values
from recsys_data.serving.online_store.protocol import Readable

if TYPE_CHECKING:
    import pyarrow as pa

# Commits come about once a second, and a reading takes milliseconds.
TRIES = 10

Keys = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Read:
    """Features as they were read.

    Attributes:
        position: of the store.
        moments: view -> whose values they are, in microseconds.
        tables: view -> a column for each feature, a row for each entity that was asked for.
    """

    position: Position
    moments: Mapping[str, int]
    tables: "Mapping[str, pa.Table]"


class FeatureReader:
    """Reads views; several threads may.

    Args:
        store: is read.
        views: what is in it.
        left_out: views that are not, and why.
        wanted: view -> its features that are read; None: all of every view.
        clock: microseconds since 1970.
    """

    def __init__(
        self,
        store: Readable,
        views: Mapping[str, OnlineView],
        left_out: Mapping[str, str] | None = None,
        wanted: Mapping[str, Collection[str]] | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store, self._left_out, self._clock = store, left_out or {}, clock
        self._wanted = wanted
        self.views = {name: one for name, one in views.items() if wanted is None or name in wanted}
        self._values = {
            name: Values(one, None if wanted is None else wanted[name])
            for name, one in self.views.items()
            if one.streams
        }

    def read(self, asked: Mapping[str, Keys], request: "Mapping[str, pa.Array] | None" = None) -> Read:
        """The features of entities as of one commit of the store.

        Args:
            asked: view -> the values of its keys for each entity.
            request: what expressions use of the request: name -> values, one for each entity of each view.

        Raises:
            UserError: a view is not in the store, or a key does not have as many values as the view.
            Transient: the store cannot be read now, or is empty.
        """
        for name, keys in asked.items():
            self._check(name, keys)
        for _ in range(TRIES):
            position, found = self._once(asked)
            if found is not None:
                return self._computed(asked, position, found, request)
        raise Transient("The online store is written faster than it can be read. Try again.")

    def _check(self, name: str, keys: Keys) -> None:
        if name not in self.views:
            why = self._left_out.get(name)
            known = ", ".join(self.views) or "none"
            raise UserError(
                f"{name} is not kept online: {why}."
                if why
                else f"There is no feature view {name}; choose from {known}."
            )
        entity = self.views[name].view.entity
        for length in set(map(len, keys)) - {len(entity)}:
            raise UserError(f"A key of {name} has {length} values; expected those of {', '.join(entity)}.")

    def _once(self, asked: Mapping[str, Keys]) -> tuple[Position, dict[str, Any] | None]:
        """The position, and what is stored as of it; None if the store went on between two readings."""
        users = sorted({str(user) for name, keys in asked.items() for user in self._users(name, keys)})
        before, *owners = self._store.get_many([KEY, *map(owner_key, users)])
        position = decode(before)
        if not before:
            raise Transient("The online store is empty. Run `recsys-data online rebuild`.")
        if missing := [name for name in asked if position.digests.get(name) != self.views[name].digest]:
            raise Transient(
                f"The online store holds {', '.join(missing)} as declared before. Run `recsys-data online update`."
            )
        moment = max(self._clock(), position.moment)
        owned = {user: owned_at(stored, moment) for user, stored in zip(users, owners, strict=True)}
        plans = {
            (name, number): self._plan(layout, asked[name], owned)
            for name in asked
            for number, layout in enumerate(self.views[name].streams)
        }
        direct = {
            name: [histories.key_of(self.views[name], key) for key in keys]
            for name, keys in asked.items()
            if not self.views[name].streams
        }
        keys = [KEY]
        keys += [key for plan in plans.values() for key, _ in plan]
        keys += [key for listed in direct.values() for key in listed]
        after, *values = self._store.get_many(keys)
        if after != before:
            return position, None
        found: dict[str, Any] = {"#moment": moment}
        left = iter(values)
        for (name, number), plan in plans.items():
            found[f"{name} {number}"] = [
                (value, entity) for (_, entity), value in zip(plan, left_of(left, len(plan)), strict=True) if value
            ]
        for name, listed in direct.items():
            found[name] = left_of(left, len(listed))
        return position, found

    def _users(self, name: str, keys: Keys) -> list[Any]:
        """The users among the keys of a view, as whom anonymous visitors may turn out to be."""
        at = {
            view.entity.index(layout.source.identity[0])
            for layout in self.views[name].streams
            for view in (layout.view,)
            if layout.anonymous and layout.source.identity
        }
        return [key[place] for place in at for key in keys if key[place] is not None]

    @staticmethod
    def _plan(layout: Layout, keys: Keys, owned: Mapping[str, list[str]]) -> list[tuple[bytes, int]]:
        """Keys that make up each entity, with its number."""
        found = []
        identity = layout.source.identity if layout.anonymous else None
        place = layout.view.entity.index(identity[0]) if identity else None
        for number, key in enumerate(keys):
            if None in key:
                continue
            found.append((key_of(layout, KNOWN, key), number))
            if place is not None:
                for anonymous in owned.get(str(key[place]), ()):
                    own = [*key[:place], anonymous, *key[place + 1 :]]
                    found.append((key_of(layout, ANONYMOUS, own), number))
        return found

    def _computed(
        self,
        asked: Mapping[str, Keys],
        position: Position,
        found: Mapping[str, Any],
        request: "Mapping[str, pa.Array] | None",
    ) -> Read:
        moment: int = found["#moment"]
        moments, tables = {}, {}
        for name, keys in asked.items():
            online = self.views[name]
            if not online.streams:
                moments[name] = position.histories[name].moment
                table = histories.restore(online, found[name])
                names = self._wanted[name] if self._wanted is not None else table.column_names
                tables[name] = table.select([one for one in table.column_names if one in names])
                continue
            moments[name] = moment
            streams = []
            for number, layout in enumerate(online.streams):
                stored = found[f"{name} {number}"]
                entities = np.array([entity for _, entity in stored], np.int64)
                wanted = self._values[name].groups(number)
                streams.append(decoded(layout.groups, [value for value, _ in stored], entities, wanted))
            tables[name] = self._values[name].compute(streams, len(keys), moment, request)
        return Read(position, moments, tables)


def left_of(values: Any, number: int) -> list[Any]:
    """The next values."""
    return [next(values) for _ in range(number)]
