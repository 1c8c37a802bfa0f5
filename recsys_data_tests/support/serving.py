"""A small deployment that serves: events, an item catalogue and a registered model."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from recsys_data.durable import scratch
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.storage.parquet import file_schema
from recsys_data.storage.partition import publish
from recsys_data.training.baselines import MODELS
from recsys_data.training.registry import CHAMPION, Version, aliases_of, register, store_artefact
from recsys_data_tests.support.shop import Shop

MODEL = "next_items"
FIRST_DAY = date(2026, 1, 1)
USERS, ITEMS = 20, 40


def interactions() -> pa.Table:
    """Users who each like the items around their own, and all of them item 0."""
    pairs = [(u, (2 * u + k) % ITEMS) for u in range(USERS) for k in range(5)] + [(u, 0) for u in range(USERS)]
    pairs = list(dict.fromkeys(pairs))
    at = datetime(2026, 1, 10, tzinfo=UTC)
    return pa.table(
        {
            "user_id": [f"u{user}" for user, _ in pairs],
            "item_id": [f"i{item}" for _, item in pairs],
            "timestamp": pa.array([at] * len(pairs), pa.timestamp("us", "UTC")),
            "weight": [1.0] * len(pairs),
        }
    )


class ServingShop(Shop):
    """A shop with a catalogue and models."""

    days = 0

    def list_items(self, items: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> None:
        """Publish the item catalogue of the next day, and its history."""
        given = items if isinstance(items, Mapping) else dict.fromkeys(items, {})
        lake = self.open_lake()
        table = lake.table("item_catalog")
        day = (FIRST_DAY - date(1970, 1, 1)).days + self.days
        self.days += 1
        moment = datetime(2026, 1, self.days + 1, tzinfo=UTC)
        rows = [
            {"title": item, "snapshot_date": date.fromordinal(date(1970, 1, 1).toordinal() + day), "as_of": moment}
            | {"item_id": item, **about}
            for item, about in given.items()
        ]
        schema = file_schema(table.schema(), [field.name for field in table.schema().fields])
        batch = pa.Table.from_pylist(rows, schema)
        publish(table, day, batch.to_reader())
        refresh_history(self.open_lake(), "item_catalog", self.settings.staging_dir, 200_000_000)

    def register(self, kind: str = "item_knn", alias: str = CHAMPION, **parameters: Any) -> Version:
        """Fit a model on `interactions`, and let an alias name it."""
        model = MODELS[kind](**parameters).fit(interactions())
        with scratch(self.settings.training_dir / "staging", "model") as folder:
            model.save(folder / "model")
            artefact = store_artefact(self.settings, folder / "model")
        lake = self.open_lake()
        version = Version(
            model=MODEL,
            version=0,
            registered_at=datetime.now(UTC),
            kind=kind,
            parameters=dict(model.parameters),
            training_set_version=1,
            training_set_inputs="",
            metrics={},
            artefact=artefact,
            software={},
        )
        found = register(lake, version, alias, aliases_of(lake).get(MODEL, {}).get(CHAMPION))
        assert found
        return found
