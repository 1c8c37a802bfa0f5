"""Answers while the catalogue churns: `python -m benchmarks.serving_churn [--answers 1000000]`.

The shop of `benchmarks.serving`, in process, because over HTTP the client would take half of the machine; impressions
are made and thrown away. Every PERIOD seconds a commit withdraws items: half are deleted, half become unavailable,
CHURN of all items a minute, most of them among those that are shown; after AWAY seconds they come back. Counted are

- answers with an item that the newest catalogue which the server had read did not show: must be 0, and ends with 1;
- answers with an item that was withdrawn in the lake already when the request came, and for how long it was: the
  catalogue in the lake is looked at every second, so this is how late a server may be.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import click
import pyarrow as pa

from benchmarks.serving import ITEMS, USERS, prepare
from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming.log import Appended
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.serving.answers import Request
from recsys_data.serving.app import Serving
from recsys_data.serving.catalogue import CatalogueReader
from recsys_data.settings import Settings
from recsys_data.storage.parquet import file_schema
from recsys_data.storage.partition import publish
from recsys_data.storage.tables import open_lake

CHURN, PERIOD, AWAY = 0.01, 2.0, 60.0
# Of the items that are withdrawn, and how many items they are taken from: those that models know best.
POPULAR, OF = 0.7, 500
Withdrawn = dict[str, float]


class Forgetful(EmbeddedLog):
    """A log that keeps nothing."""

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        return None


class Churn:
    """Commits catalogues, and knows what was withdrawn as of each, and since when."""

    def __init__(self, settings: Settings) -> None:
        self._table = open_lake(settings, load_contracts()).table("item_catalog")
        self._draw = random.Random(3)
        # Item -> when the commit that withdrew it was done.
        self.newest: Withdrawn = {}
        self.as_of: dict[int, Withdrawn] = {}
        self.commits = self.withdrawn = self.returned = 0
        self.failure: BaseException | None = None
        self._hidden: dict[str, bool] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Churn":
        self.commit()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def commit(self) -> None:
        """Withdraw some items, let others come back, and publish the whole catalogue of today."""
        now = time.monotonic()
        before = self.newest
        kept = {item: since for item, since in before.items() if now - since < AWAY}
        fresh = []
        for _ in range(round(ITEMS * CHURN * PERIOD / 60)):
            number = self._draw.randrange(OF if self._draw.random() < POPULAR else ITEMS)
            if (item := f"i{number}") not in kept:
                fresh.append(item)
                self._hidden[item] = self._draw.random() < 0.5
        today = datetime.now(UTC).date()
        out = {*kept, *fresh}
        rows: list[dict[str, Any]] = [
            {
                "item_id": f"i{n}",
                "title": "t",
                "available": f"i{n}" not in out,
                "snapshot_date": today,
                "as_of": datetime.now(UTC),
            }
            for n in range(ITEMS)
            if f"i{n}" not in out or self._hidden[f"i{n}"]
        ]
        schema = file_schema(self._table.schema(), [field.name for field in self._table.schema().fields])
        publish(self._table, (today - date(1970, 1, 1)).days, pa.Table.from_pylist(rows, schema).to_reader())
        snapshot = self._table.refresh().current_snapshot()
        assert snapshot is not None
        done = time.monotonic()
        self.as_of[snapshot.snapshot_id] = self.newest = kept | dict.fromkeys(fresh, done)
        self.commits += 1
        self.withdrawn += len(fresh)
        self.returned += len(before) - len(kept)

    def _run(self) -> None:
        try:
            while not self._stop.wait(PERIOD):
                self.commit()
        except BaseException as error:
            self.failure = error


def watch(reader: CatalogueReader, seen: list[int]) -> None:
    """Note each snapshot that the server has read, by what it remembers to have read."""
    refresh = reader.refresh

    def noting() -> None:
        refresh()
        if reader._seen:
            seen.append(reader._seen[1])

    reader.refresh = noting  # type: ignore[method-assign]


async def ask(settings: Settings, answers: int) -> int:
    """Print what was counted; how many answers were wrong."""
    log = Forgetful(settings.log_dir, partitions=1)
    lake = open_lake(settings, load_contracts())
    serving = Serving(lake, log, settings)
    reader = serving.recommender.catalogue
    read: list[int] = []
    watch(reader, read)
    # The refresher took the method before it was replaced.
    serving.refreshers[0]._refresh = reader.refresh
    wrong, late, delays, shown_again = 0, 0, [], 0
    with Churn(settings) as churn:
        async with serving.app.router.lifespan_context(serving.app):
            recommender = serving.recommender
            draw = random.Random(2)
            rows = [
                (f"u{u}", None, None, f"i{int(ITEMS * draw.random() ** 2)}") for u in range(USERS) for _ in range(10)
            ]
            recommender.visitors.add(rows)  # type: ignore[attr-defined]
            for _ in range(ITEMS // 500):
                recommender.models.refresh()
            begun, cpu, ever, before = time.perf_counter(), time.process_time(), set(), churn.commits
            for n in range(answers):
                known, newest = churn.as_of.get(read[-1], {}), churn.newest
                answer = await recommender.recommend(Request(user_id=f"u{n % USERS}", n=12))
                assert len(answer.items) == 12
                items = {one.item_id for one in answer.items}
                if not items.isdisjoint(known):
                    wrong += 1
                if not items.isdisjoint(newest):
                    late += 1
                    moment = time.monotonic()
                    delays.append(max(moment - newest[one] for one in items if one in newest))
                if n % 1000 == 0:
                    ever |= newest.keys()
                    shown_again += len(items & (ever - newest.keys()))
                if n % 20 == 0:
                    await asyncio.sleep(0)
                if n and n % 100_000 == 0:
                    click.echo(f"{n:,} answers, {wrong} wrong, {late:,} late", err=True)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
            commits = churn.commits - before
    log.close()
    if churn.failure:
        raise churn.failure
    click.echo(
        f"{answers:,} answers of 12 items in {seconds:,.0f} s ({cpu:,.0f} s CPU), {commits} commits of the catalogue, "
        f"{churn.withdrawn:,} items withdrawn and {churn.returned:,} returned ({shown_again} of them seen in a sample)"
    )
    click.echo(f"with an item that the catalogue as read did not show: {wrong}")
    click.echo(f"with an item that was withdrawn in the lake when the request came: {late:,} ({late / answers:.3%})")
    if len(delays) > 1:
        quantiles = statistics.quantiles(delays, n=100, method="inclusive")
        click.echo(
            f"  for so long: p50 {quantiles[49]:.2f} s, p99 {quantiles[98]:.2f} s, at most {max(delays):.2f} s; "
            "the catalogue is looked at a second after the last look ended"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--answers", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(dir=folder, log_partitions=1)
        prepare(settings)
        return 1 if asyncio.run(ask(settings, options.answers)) else 0


if __name__ == "__main__":
    sys.exit(main())
