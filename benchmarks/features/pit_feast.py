"""Feast's point-in-time join over the same files; run by `pit` in an environment that has Feast and not this project.

Its file store knows when a state begins and not when it ends, so the end is a feature too, by which
`pit` corrects the result. Measured is `get_historical_features` alone.
"""

# pyright: reportMissingImports=false

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String, UnixTimestamp

VIEWS = {
    "users": ("user", {"segment": String, "age": Int64, "score": Float64, "country": String}),
    "items": ("item", {"category": String, "price": Float64, "in_stock": Bool}),
    "daily": ("user", {"events_to_date": Int64}),
}


def store(folder: Path) -> FeatureStore:
    """A store whose views read copies of the files in which the end of a state is named after its view."""
    place = folder / "feast-store"
    place.mkdir()
    (place / "feature_store.yaml").write_text(
        f"project: pit\nregistry: {place / 'registry.db'}\nprovider: local\noffline_store: {{type: file}}\n"
        f"online_store: {{type: sqlite, path: {place / 'online.db'}}}\nentity_key_serialization_version: 3\n"
    )
    entities = {one: Entity(name=one, join_keys=[f"{one}_id"], value_type=ValueType.INT64) for one in ("user", "item")}
    views = []
    for name, (entity, columns) in VIEWS.items():
        frame = pd.read_parquet(folder / f"{name}.parquet").rename(columns={"valid_to": f"{name}_valid_to"})
        frame.to_parquet(place / f"{name}.parquet")
        schema = [Field(name=column, dtype=kind) for column, kind in columns.items()]
        if name != "daily":
            schema.append(Field(name=f"{name}_valid_to", dtype=UnixTimestamp))
        source = FileSource(name=name, path=str(place / f"{name}.parquet"), timestamp_field="valid_from")
        one = FeatureView(
            name=name, entities=[entities[entity]], ttl=timedelta(0), schema=schema, source=source, online=False
        )
        views.append(one)
    made = FeatureStore(str(place))
    made.apply([*entities.values(), *views])
    return made


def main() -> None:
    folder = Path(sys.argv[1])
    made = store(folder)
    spine = pd.read_parquet(folder / "spine.parquet").rename(columns={"timestamp": "event_timestamp"})
    wanted = [f"{name}:{column}" for name, (_, columns) in VIEWS.items() for column in columns]
    wanted += ["users:users_valid_to", "items:items_valid_to"]
    began, cpu = time.perf_counter(), time.process_time()
    found = made.get_historical_features(entity_df=spine, features=wanted).to_arrow()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    pq.write_table(found, folder / "feast-raw.parquet")
    sys.stdout.write("measured: " + json.dumps([seconds, used, peak, 0.0]) + "\n")


if __name__ == "__main__":
    main()
