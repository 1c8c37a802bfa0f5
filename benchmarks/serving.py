"""Answers per second of the candidate path: `python -m benchmarks.serving`, in process, and over HTTP with `--http`.

A catalogue of ITEMS items, an item_knn champion that learned from USERS users, USERS visitors who ask in turn. Over
HTTP a server process and this client share the machine: the client keeps CONNECTIONS requests open.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import click
import httpx
import msgspec
import pyarrow as pa

from recsys_data.contracts import load_contracts
from recsys_data.durable import scratch
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.serving.answers import Request
from recsys_data.serving.app import Serving
from recsys_data.settings import Settings
from recsys_data.storage.parquet import file_schema
from recsys_data.storage.partition import publish
from recsys_data.storage.tables import open_lake
from recsys_data.training.baselines import MODELS
from recsys_data.training.registry import CHAMPION, Version, register, store_artefact

USERS, ITEMS, EACH = 5_000, 10_000, 30
CONNECTIONS = 8
# In which a server asks its model for what answers will need.
PREPARING_SECONDS = 30


def prepare(settings: Settings) -> None:
    """A catalogue and a champion."""
    lake = open_lake(settings, load_contracts())
    table = lake.table("item_catalog")
    today = datetime.now(UTC).date()
    rows = [
        {"item_id": f"i{n}", "title": "t", "snapshot_date": today, "as_of": datetime.now(UTC)} for n in range(ITEMS)
    ]
    schema = file_schema(table.schema(), [field.name for field in table.schema().fields])
    publish(table, (today - date(1970, 1, 1)).days, pa.Table.from_pylist(rows, schema).to_reader())
    draw = random.Random(1)
    pairs = {(u, int(ITEMS * draw.random() ** 2)) for u in range(USERS) for _ in range(EACH)}
    columns = {
        "user_id": [f"u{user}" for user, _ in pairs],
        "item_id": [f"i{item}" for _, item in pairs],
        "timestamp": pa.array([datetime.now(UTC)] * len(pairs), pa.timestamp("us", "UTC")),
        "weight": [1.0] * len(pairs),
    }
    model = MODELS["item_knn"]().fit(pa.table(columns))
    with scratch(settings.training_dir / "staging", "model") as folder:
        model.save(folder / "model")
        artefact = store_artefact(settings, folder / "model")
    version = Version(
        model="next_items",
        version=0,
        registered_at=datetime.now(UTC),
        kind="item_knn",
        parameters=dict(model.parameters),
        training_set_version=1,
        training_set_inputs="",
        metrics={},
        artefact=artefact,
        software={},
    )
    register(lake, version, CHAMPION)


async def in_process(settings: Settings, answers: int) -> None:
    log = open_log(settings)
    serving = Serving(open_lake(settings, load_contracts()), log, settings)
    async with serving.app.router.lifespan_context(serving.app):
        recommender = serving.recommender
        draw = random.Random(2)
        rows = [(f"u{u}", None, None, f"i{int(ITEMS * draw.random() ** 2)}") for u in range(USERS) for _ in range(10)]
        recommender.visitors.add(rows)  # type: ignore[attr-defined]
        # A server does so in its first seconds.
        for _ in range(ITEMS // 500):
            recommender.models.refresh()
        for name, users in (("first answers of visitors", answers), ("visitors who come again", answers)):
            seconds, cpu, times, fallbacks = time.perf_counter(), time.process_time(), [], 0
            for n in range(users):
                begun = time.perf_counter()
                answer = await recommender.recommend(Request(user_id=f"u{n % USERS}", n=12))
                times.append(time.perf_counter() - begun)
                assert len(answer.items) == 12
                fallbacks += answer.fallback
                if n % 50 == 0:
                    await asyncio.sleep(0)
            report(name, users, time.perf_counter() - seconds, time.process_time() - cpu, times)
            click.echo(f"  {fallbacks} fallbacks, of models that took longer than the budget")
    log.close()


async def over_http(settings: Settings, answers: int) -> None:
    command = [sys.executable, "-m", "recsys_data.cli", "serve", "--port", "8193"]
    environment = {**os.environ, "RECSYS_DATA_DIR": settings.dir, "RECSYS_DATA_LOG_LEVEL": "warning"}
    server = subprocess.Popen(command, env=environment)
    try:
        url, times = "http://127.0.0.1:8193/v1/recommend", []
        async with httpx.AsyncClient() as client:
            for _ in range(100):
                try:
                    await client.get("http://127.0.0.1:8193/health")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(PREPARING_SECONDS)

            async def ask(first: int) -> None:
                for n in range(first, answers, CONNECTIONS):
                    body = msgspec.json.encode({"user_id": f"u{n % USERS}", "n": 12})
                    begun = time.perf_counter()
                    assert (await client.post(url, content=body)).status_code == 200
                    times.append(time.perf_counter() - begun)

            for name in ("HTTP, first answers of visitors", "HTTP, visitors who come again"):
                times.clear()
                seconds, cpu = time.perf_counter(), cpu_of(server.pid)
                await asyncio.gather(*(ask(first) for first in range(CONNECTIONS)))
                report(name, answers, time.perf_counter() - seconds, cpu_of(server.pid) - cpu, times)
    finally:
        server.terminate()
        server.wait(30)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(name: str, answers: int, seconds: float, cpu: float, times: list[float]) -> None:
    quantiles = statistics.quantiles(times, n=100)
    click.echo(
        f"{name}: {answers / seconds:,.0f} answers/s, {answers / cpu:,.0f} a CPU second of the server; "
        f"p50 {quantiles[49] * 1000:.2f} ms, p99 {quantiles[98] * 1000:.2f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=USERS)
    parser.add_argument("--http", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(dir=folder)
        prepare(settings)
        asyncio.run((over_http if given.http else in_process)(settings, given.answers))


if __name__ == "__main__":
    main()
