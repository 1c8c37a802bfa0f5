"""Rankers that order the candidates of an answer by features from the online store.

Data flow: candidates -> features of the visitor, the items and their pairs, as of one position of the store -> scores.
What was read, and where, goes into the impressions. A ranker that cannot be asked leaves the candidates as they are.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys_data.errors import RecsysDataError, UserError
from recsys_data.serving.answers import Request
from recsys_data.serving.online.layout import KNOWN
from recsys_data.serving.online.reader import FeatureReader, Read
from recsys_data.serving.online.updater import online_views
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake
from recsys_data.training.baselines.model import Ranker
from recsys_data.training.registry import MODELS, aliases_of
from recsys_data.training.train import load

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Candidates that are ranked; those below them keep their order, after these.
RANKED = 100
SEPARATOR = "__"
USER, ITEM = "user_id", "item_id"


@dataclass(frozen=True)
class Scores:
    """What a ranker said.

    Attributes:
        ranker: its name and version.
        scores: item -> score; the greater, the better.
        read: where and when features were read.
        values: item -> features by name.
    """

    ranker: str
    scores: Mapping[str, float]
    read: Read
    values: "Mapping[str, pa.Array]" = field(default_factory=dict)
    items: Sequence[str] = ()

    def features_of(self, item_id: str) -> dict[str, Any]:
        """The features of an item that was ranked."""
        row = self.items.index(item_id)
        return {name: column[row].as_py() for name, column in self.values.items()}


class ServedRanker:
    """A version of a ranker, with a reader of its features.

    Args:
        ranker: fitted.
        name: of the model and its version.
        lake: whose feature views it reads.
        store: where they are kept.

    Raises:
        UserError: it needs features that are not kept online.
    """

    def __init__(self, ranker: Ranker, name: str, lake: Lake, store: OnlineStore) -> None:
        self.name = name
        self._ranker = ranker
        views, left_out = online_views(lake)
        self._wanted: dict[str, list[str]] = {}
        self._context: list[str] = []
        for column in ranker.features:
            view, separator, feature = column.partition(SEPARATOR)
            if not separator:
                self._context.append(column)
            elif view in views and feature in {KNOWN, *(one.name for one in views[view].view.features)}:
                self._wanted.setdefault(view, []).append(feature)
            else:
                absent = f"{view} has no such feature" if view in views else "there is no such feature view"
                why = left_out.get(view, absent)
                raise UserError(f"{name} needs {column}, which is not kept online: {why}.")
        for view in self._wanted:
            if other := set(views[view].view.entity) - {USER, ITEM}:
                raise UserError(f"{name} needs {view} by {', '.join(sorted(other))}, which requests do not have.")
        self._reader = FeatureReader(store, views, left_out, self._wanted)

    def score(self, request: Request, items: Sequence[str]) -> Scores:
        """Scores of items for the visitor of a request.

        Raises:
            RecsysDataError: features cannot be read now.
        """
        import pyarrow as pa

        given = {USER: request.user_id}
        asked: dict[str, list[list[Any]]] = {}
        for view in self._wanted:
            entity = self._reader.views[view].view.entity
            # Of a visitor there is one row for all items.
            rows = items if ITEM in entity else items[:1]
            asked[view] = [[item if name == ITEM else given[name] for name in entity] for item in rows]
        read = self._reader.read(asked)
        values: dict[str, pa.Array] = {}
        for view, features in self._wanted.items():
            table = read.tables[view]
            once = table.num_rows < len(items)
            for feature in features:
                column = table.column(feature).combine_chunks()
                values[f"{view}{SEPARATOR}{feature}"] = pa.repeat(column[0], len(items)) if once else column
        for name in self._context:
            known = request.context.get(name)
            values[name] = pa.array([known if isinstance(known, (str, int, float)) else None] * len(items))
        said = self._ranker.scores(pa.table(values)).tolist()
        return Scores(self.name, dict(zip(items, said, strict=True)), read, values, items)


class RankerLoader:
    """Loads rankers by alias, again when the alias names another version.

    Attributes:
        loaded: (model, alias) -> version.
        failures: (model, alias) -> why there is none.

    Args:
        lake: where the registry is.
        settings: say where files are.
        store: where features are; None: rankers cannot be served.
        wanted: (model, alias) of all that answers may need.
    """

    def __init__(
        self, lake: Lake, settings: Settings, store: OnlineStore | None, wanted: Collection[tuple[str, str]]
    ) -> None:
        self.loaded: dict[tuple[str, str], ServedRanker] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self._lake, self._settings, self._store = lake, settings, store
        self._wanted = sorted(wanted)

    def refresh(self) -> None:
        """Load what the aliases name now. A version that cannot be loaded leaves the one before in place."""
        if not self._wanted:
            return
        aliases = aliases_of(self._lake) if self._lake.exists(MODELS) else {}
        for key in self._wanted:
            model, alias = key
            version = aliases.get(model, {}).get(alias)
            if version is None:
                self.loaded.pop(key, None)
                self.failures[key] = f"there is no {alias} of {model}"
            elif key not in self.loaded or self.loaded[key].name != f"{model}/{version}":
                self._load(key, version)

    def _load(self, key: tuple[str, str], version: int) -> None:
        name = f"{key[0]}/{version}"
        try:
            ranker, about = load(self._lake, self._settings, key[0], str(version))
            if not isinstance(ranker, Ranker):
                raise UserError(f"{name} is a {about.kind}, which recommends items; expected a ranker.")
            if self._store is None:
                raise UserError(f"{name} needs the online store, which cannot be opened.")
            self.loaded[key] = ServedRanker(ranker, name, self._lake, self._store)
        except RecsysDataError as error:
            if self.failures.get(key) != str(error):
                logger.error("The ranker %s cannot be served: %s", name, error)
            self.failures[key] = str(error)
            return
        self.failures.pop(key, None)
        logger.info("The ranker %s is served as %s of %s.", name, key[1], key[0])

    def find(self, model: str | None, alias: str) -> ServedRanker | None:
        """The version that an alias names; None if there is none."""
        return self.loaded.get((model, alias)) if model else None

    def describe(self) -> list[dict[str, Any]]:
        """What is loaded and what is not, for `/health`."""
        return [
            {
                "ranker": model,
                "alias": alias,
                "served": self.loaded[model, alias].name if (model, alias) in self.loaded else None,
                "failure": self.failures.get((model, alias)),
            }
            for model, alias in self._wanted
        ]
