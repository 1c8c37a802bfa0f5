"""A small shop that serves in this process."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from recsys_data.contracts import Contract, load_contracts
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.serving.app import Serving
from recsys_data_tests.support.serving import ITEMS, ServingShop


@cache
def builtin_contracts() -> Mapping[str, Contract]:
    return load_contracts()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ServingShop]:
    """A deployment that has nothing yet, with a folder for scenarios."""
    made = ServingShop(tmp_path / "data", builtin_contracts(), partitions=1)
    (tmp_path / "own" / "scenarios").mkdir(parents=True)
    made.settings = msgspec.structs.replace(made.settings, contracts=str(tmp_path / "own"))
    yield made
    made.close()


@pytest.fixture
def shop(empty: ServingShop) -> ServingShop:
    """One with a catalogue and a champion."""
    empty.list_items([f"i{n}" for n in range(ITEMS)])
    empty.register()
    return empty


def declare(shop: ServingShop, **document: Any) -> None:
    """Write a scenario to the user's folder."""
    (shop.settings.contract_dirs[0] / "scenarios" / f"{document['name']}.yaml").write_text(json.dumps(document))


class Client:
    """Calls a server in this process from outside its event loop."""

    def __init__(self, serving: Serving, portal: BlockingPortal) -> None:
        transport = httpx.ASGITransport(serving.app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://serving")
        self._portal = portal
        self.serving = serving

    def request(self, method: str, path: str, **sent: Any) -> httpx.Response:
        return self._portal.start_task_soon(partial(self._http.request, method, path, **sent)).result(timeout=30)

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, code: int = 200, **sent: Any) -> dict[str, Any]:
        answer = self.request("POST", path, **sent)
        assert answer.status_code == code, answer.text
        return answer.json()

    def recommend(self, **request: Any) -> dict[str, Any]:
        return self.post("/v1/recommend", json=request)

    def refresh(self) -> None:
        """Read from the lake now what is read every second otherwise."""
        for one in self.serving.refreshers:
            one.once()
            assert one.failure is None

    def counted(self, name: str) -> float:
        """The sum of a counter over its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.fixture
def serve() -> Iterator[Callable[..., Client]]:
    """Starts to serve a shop, and refreshes once; `stop` ends it, which flushes."""
    with start_blocking_portal() as portal, ExitStack() as running:

        def start(
            shop: ServingShop, log: EventLog | None = None, shop_url: str | None = None, **settings: Any
        ) -> Client:
            given = msgspec.structs.replace(shop.settings, **settings)
            serving = Serving(shop.open_lake(), log or shop.log, given, shop=shop_url)
            stopping = ExitStack()
            stopping.enter_context(portal.wrap_async_context_manager(serving.app.router.lifespan_context(serving.app)))
            running.callback(stopping.close)
            client = Client(serving, portal)
            client.stop = stopping.close  # type: ignore[attr-defined]
            client.refresh()
            return client

        yield start


def items_of(answer: Mapping[str, Any]) -> list[str]:
    return [one["item_id"] for one in answer["items"]]
