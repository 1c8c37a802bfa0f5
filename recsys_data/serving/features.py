"""`/v1/features`: current features of entities by name, as a feature server answers."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from recsys_data.errors import Transient, UserError
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.served import read_from
from recsys_data.serving.online.updater import online_views
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.storage.tables import Lake

MOST_ENTITIES = 1_000
SEPARATOR = ":"

Value = str | int | float | bool | None
Column = Annotated[list[Value], msgspec.Meta(max_length=MOST_ENTITIES)]


class FeaturesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked.

    Attributes:
        features: `VIEW` or `VIEW:FEATURE`.
        entities: name of a key, such as `user_id` -> its values; all of the same number, which is that of the answers.
        request: what expressions use of the request: name -> values, as many.
    """

    features: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_ENTITIES)]
    entities: Annotated[dict[str, Column], msgspec.Meta(min_length=1)]
    request: dict[str, Column] = {}


class Features:
    """Reads features of a lake from its online store.

    Args:
        lake: whose views are meant.
        store: where they are kept; None: it cannot be opened.
    """

    def __init__(self, lake: Lake, store: OnlineStore | None) -> None:
        self._lake, self._store = lake, store

    @cached_property
    def _reader(self) -> FeatureReader:
        if self._store is None:
            raise Transient("The online store cannot be opened; see the log.")
        return FeatureReader(self._store, *online_views(self._lake))

    def read(self, asked: FeaturesRequest) -> dict[str, Any]:
        """`features`: `VIEW:FEATURE` -> values; `moments` and `positions`: whose values they are, and read at which.

        Raises:
            UserError: a view, a feature or a key is not known, or columns differ in length.
            Transient: the store cannot be read now.
        """
        lengths = {len(values) for values in [*asked.entities.values(), *asked.request.values()]}
        if len(lengths) != 1:
            raise UserError(f"The columns have {sorted(lengths)} values; expected the same number in each.")
        wanted: dict[str, list[str]] = {}
        for name in asked.features:
            view, _, feature = name.partition(SEPARATOR)
            wanted.setdefault(view, []).append(feature)
        keys = {view: self._keys(view, asked) for view in wanted}
        request = {name: pa.array(values) for name, values in asked.request.items()}
        read = self._reader.read(keys, request)
        found: dict[str, list[Any]] = {}
        for view, features in wanted.items():
            table = read.tables[view]
            for feature in features if all(features) else table.column_names:
                if feature not in table.column_names:
                    raise UserError(f"{view} has no feature {feature!r}; it has {', '.join(table.column_names)}.")
                found[f"{view}{SEPARATOR}{feature}"] = table.column(feature).to_pylist()
        return {"features": found, **read_from(read)}

    def _keys(self, view: str, asked: FeaturesRequest) -> Sequence[Sequence[Any]]:
        online = self._reader.views.get(view)
        # An unknown view is refused by the reader.
        entity = online.view.entity if online else ()
        if missing := [name for name in entity if name not in asked.entities]:
            raise UserError(f"{view} needs {', '.join(missing)} among the entities.")
        if online and (absent := [name for name in online.view.request if name not in asked.request]):
            raise UserError(f"{view} needs {', '.join(absent)} of the request.")
        return list(zip(*(asked.entities[name] for name in entity), strict=True))
