"""The registered models that answers come from: loaded by alias, and again when the alias names another version.

Data flow: aliases of the registry, read about once a second -> `ServedModel`, which remembers what its model said.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Any, Generic, TypeVar

from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.baselines.model import Model
from recsys_data.training.registry import MODELS, aliases_of
from recsys_data.training.train import load

logger = logging.getLogger(__name__)

# Items that are kept of each item's neighbours and of each user's recommendations.
NEIGHBOURS = 50
RECOMMENDED = 100
ITEMS_REMEMBERED = 20_000
USERS_REMEMBERED = 20_000
# Neighbours are asked for before answers need them, those of the most popular items before a version is served. In
# small blocks, because an answer may wait.
ASKED_FIRST = 1_000
ASKED_AT_ONCE = 500
BLOCK = 50
# A visitor that no model knows: it gives the popular items.
NOBODY = ""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """The newest answers of a model, which says the same until it is replaced."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        return self._kept.get(key)

    def put(self, key: Key, value: Value) -> None:
        self._kept[key] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


class ServedModel:
    """A version of a model, with what it said.

    Attributes:
        name: of the model and its version, such as `next_items/3`.
        popular: all items that it knows, the most popular first.
        known: their places there, from 0.
    """

    def __init__(self, model: Model, name: str) -> None:
        self.name = name
        self._model = model
        # One at a time: models limit the threads of linear algebra for the whole process.
        self._asking = threading.Lock()
        self._prepared = 0
        everything = model.recommend([NOBODY], 1 << 30, exclude_seen=False)
        self.popular: tuple[str, ...] = tuple(everything.column("item_id").to_pylist())
        self.known = {item: rank for rank, item in enumerate(self.popular)}
        self._ids = {item: item for item in self.popular}
        self._similar: Remembered[str, tuple[tuple[str, float], ...]] = Remembered(ITEMS_REMEMBERED)
        self._users: Remembered[str, tuple[str, ...]] = Remembered(USERS_REMEMBERED)

    def prepare(self) -> None:
        """Ask for some of what answers will need; nothing once all is there."""
        count = ASKED_AT_ONCE if self._prepared else ASKED_FIRST
        end = min(self._prepared + count, ITEMS_REMEMBERED, len(self.popular))
        for first in range(self._prepared, end, BLOCK):
            self.similar(self.popular[first : min(first + BLOCK, end)])
        self._prepared = end

    def remembered_similar(self, item_ids: Collection[str]) -> dict[str, tuple[tuple[str, float], ...]] | None:
        """The items like each that the model knows, with scores, best first; None if it has to be asked."""
        found = {}
        for item in item_ids:
            if item in self.known:
                said = self._similar.get(item)
                if said is None:
                    return None
                found[item] = said
        return found

    def similar(self, item_ids: Collection[str]) -> dict[str, tuple[tuple[str, float], ...]]:
        """The same, asking the model."""
        asked = [one for one in dict.fromkeys(item_ids) if one in self.known and self._similar.get(one) is None]
        if asked:
            said: dict[str, list[tuple[str, float]]] = {one: [] for one in asked}
            with self._asking:
                table = self._model.similar(asked, NEIGHBOURS)
            columns = (table.column(name).to_pylist() for name in ("query_id", "item_id", "score"))
            for query, item, score in zip(*columns, strict=True):
                said[query].append((self._ids[item], score))
            for item, found in said.items():
                self._similar.put(item, tuple(found))
        return {one: self._similar.get(one) or () for one in item_ids if one in self.known}

    def remembered_user(self, user_id: str) -> tuple[str, ...] | None:
        """What is recommended to a user, best first, empty if nothing is known of them; None: it has to be asked."""
        return self._users.get(user_id)

    def recommend(self, user_id: str) -> tuple[str, ...]:
        """The same, asking the model."""
        found = self._users.get(user_id)
        if found is None:
            with self._asking:
                table = self._model.recommend([user_id], RECOMMENDED)
            said = zip(table.column("item_id").to_pylist(), table.column("score").to_pylist(), strict=True)
            # Below 0 are the popular items, which follow those that the model chose for the user.
            found = tuple(self._ids[item] for item, score in said if score >= 0)
            self._users.put(user_id, found)
        return found

    def rank(self, user_id: str, item_ids: Collection[str]) -> tuple[str, ...]:
        """Those of the items that the model knows, the best for a user first."""
        with self._asking:
            table = self._model.recommend([user_id], len(item_ids), exclude_seen=False, candidates=list(item_ids))
        return tuple(table.column("item_id").to_pylist())


class ModelLoader:
    """Loads models by alias.

    Attributes:
        loaded: (model, alias) -> version, of those that could be loaded.
        failures: (model, alias) -> why the version that the alias names now is not loaded.

    Args:
        lake: where the registry is.
        settings: say where files are.
        wanted: (model, alias) of all that answers may need.
    """

    def __init__(self, lake: Lake, settings: Settings, wanted: Collection[tuple[str, str]]) -> None:
        self.loaded: dict[tuple[str, str], ServedModel] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self._lake = lake
        self._settings = settings
        self._wanted = sorted(wanted)
        self._versions: dict[tuple[str, str], int] = {}

    def refresh(self) -> None:
        """Load what the aliases name now. A version that cannot be loaded leaves the one before in place."""
        aliases = aliases_of(self._lake) if self._lake.exists(MODELS) else {}
        for key in self._wanted:
            model, alias = key
            version = aliases.get(model, {}).get(alias)
            if version is None:
                self._versions.pop(key, None)
                self.loaded.pop(key, None)
                self.failures[key] = f"there is no {alias} of {model}"
            elif version != self._versions.get(key):
                self._load(key, version)
        for one in list(self.loaded.values()):
            one.prepare()

    def _load(self, key: tuple[str, str], version: int) -> None:
        name = f"{key[0]}/{version}"
        same = next((one for one in list(self.loaded.values()) if one.name == name), None)
        try:
            self.loaded[key] = same or self._load_version(key[0], version, name)
        except UserError as error:
            if self.failures.get(key) != str(error):
                logger.error("The model %s cannot be served: %s", name, error)
            self.failures[key] = str(error)
            return
        self._versions[key] = version
        self.failures.pop(key, None)
        logger.info("The model %s is served as %s of %s.", name, key[1], key[0])

    def _load_version(self, model: str, version: int, name: str) -> ServedModel:
        loaded, about = load(self._lake, self._settings, model, str(version))
        if not isinstance(loaded, Model):
            raise UserError(
                f"{name} is a {about.kind}, which orders given items; expected a model that recommends some."
            )
        found = ServedModel(loaded, name)
        found.prepare()
        return found

    def find(self, model: str, alias: str) -> ServedModel | None:
        """The version that an alias names; None if it could not be loaded."""
        return self.loaded.get((model, alias))

    def describe(self) -> list[dict[str, Any]]:
        """What is loaded and what is not, for `/health`."""
        found = []
        for key in self._wanted:
            model = self.loaded.get(key)
            served = model.name if model else None
            found.append({"model": key[0], "alias": key[1], "served": served, "failure": self.failures.get(key)})
        return found
