"""Served feature values against the lake: `python -m benchmarks.parity [--events 200000] [--readings 25]`.

A simulated shop is ingested in as many parts as there are readings. After each part the updater follows the lake, and
features of users, items and pairs are read from the online store as answers read them. At the end every value is
computed again from the lake at the positions and moments of its reading. Then the same with an updater that loses an
update, one that doubles it, and one with a wrong window: each must be found.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import msgspec
import numpy as np

from recsys_data.contracts import load_contracts
from recsys_data.features.parity import Reading, Served, compared
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.ingestion.streaming.log.received_at import with_received_at
from recsys_data.serving.online import updater as updating
from recsys_data.serving.online.reader import FeatureReader
from recsys_data.serving.online.updater import Updater
from recsys_data.serving.online_store.lmdb import LmdbStore
from recsys_data.settings import Settings
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.storage.tables import Lake, open_lake

VIEWS = ("user_activity", "item_engagement", "user_item")
USERS, ITEMS, PAIRS = 400, 600, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--readings", type=int, default=25)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(dir=folder)
        lake = open_lake(settings, load_contracts())
        begun = time.perf_counter()
        with closing(EmbeddedLog(settings.log_dir)) as log, closing(LmdbStore(Path(folder) / "online")) as store:
            readings = []
            for part in _parts(given.events, given.readings):
                log.append(part)
                for _ in consume(log, lake, settings, Until()):
                    pass
                Updater(lake, store).update()
                readings.append(_read(lake, store, len(readings)))
            click.echo(f"Ingested, followed and read in {time.perf_counter() - begun:.0f} s.")
            begun, cpu = time.perf_counter(), time.process_time()
            found = compared(lake, readings)
            click.echo(
                f"{found.values:,} values served at {found.readings} positions: {found.different:,} differ; "
                f"{found.within:,} are within 1e-9; {time.perf_counter() - begun:.0f} s, "
                f"{time.process_time() - cpu:.0f} CPU s."
            )
            for one in found.differences[:5]:
                click.echo(str(one))
            for name, sabotage in SABOTAGES.items():
                store.clear()
                with sabotage():
                    Updater(lake, store).update()
                spoiled = compared(lake, [_read(lake, store, 0)])
                click.echo(f"{name}: {spoiled.different:,} of {spoiled.values:,} values differ.")


def _parts(events: int, parts: int) -> Iterator[list[bytes]]:
    """The lines of a simulated shop in parts, received now."""
    lines: list[bytes] = []
    size = events // parts
    for batch in simulate(Plan(events=events, seed=14)):
        lines += with_received_at(batch.lines, datetime.now(UTC))
        while len(lines) >= size:
            yield lines[:size]
            lines = lines[size:]
    if lines:
        yield lines


def _read(lake: Lake, store: LmdbStore, seed: int) -> Reading:
    """Features of random entities, as answers read them and impressions say them."""
    views, left_out = updating.online_views(lake)
    reader = FeatureReader(store, views, left_out, {name: _names(views[name].view) for name in VIEWS})
    draw = np.random.default_rng(seed)
    rows = lake.table("interactions").scan(selected_fields=("user_id", "item_id")).to_arrow()
    users, items = (
        draw.permutation(rows[name].drop_null().unique().to_pylist())[:most].tolist()
        for name, most in (("user_id", USERS), ("item_id", ITEMS))
    )
    pairs = [[users[n % len(users)], items[n % len(items)]] for n in range(PAIRS)]
    asked: Mapping[str, Sequence[Sequence[Any]]] = {
        "user_activity": [[one] for one in users],
        "item_engagement": [[one] for one in items],
        "user_item": pairs,
    }
    read = reader.read(asked)
    served = []
    for view, keys in asked.items():
        names = views[view].view.entity
        for key, row in zip(keys, read.tables[view].to_pylist(), strict=True):
            entity = dict.fromkeys(("user_id", "item_id")) | dict(zip(names, key, strict=True))
            values = msgspec.json.decode(msgspec.json.encode(row))
            served.append(Served(entity, {f"{view}__{name}": value for name, value in values.items()}))
    positions = {name: stream.positions for name, stream in read.position.streams.items()}
    return Reading(positions, read.moments, served)


def _names(view: Any) -> list[str]:
    return [one.name for one in view.features]


@contextmanager
def _lost() -> Iterator[None]:
    once, calls = updating.pieces_after, iter(range(1_000_000))

    def sometimes(connection: Any, layout: Any, query: str, target: Any, now: int) -> Any:
        return {} if next(calls) == 0 else once(connection, layout, query, target, now)

    with patch.object(updating, "pieces_after", sometimes):
        yield


@contextmanager
def _changed(change: str) -> Iterator[None]:
    once = updating.pieces_after

    def changed(connection: Any, layout: Any, query: str, target: Any, now: int) -> Any:
        return once(connection, layout, change.format(rows=query), target, now)

    with patch.object(updating, "pieces_after", changed):
        yield


SABOTAGES = {
    "A lost update": _lost,
    "A doubled update": lambda: _changed("({rows}) UNION ALL ({rows})"),
    "Windows that are an hour off": lambda: _changed(
        "SELECT * REPLACE (event_ts - INTERVAL 1 HOUR AS event_ts) FROM ({rows})"
    ),
}

if __name__ == "__main__":
    main()
