"""S3 that cuts, delays, throttles or is away: survived, or reported as such; nothing is lost or called damaged."""

import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import duckdb
import pytest

from recsys_data.errors import RecsysDataError, Transient
from recsys_data.operations.platform import explain
from recsys_data.settings import Settings
from recsys_data.storage.guard.read_only import answered
from recsys_data.storage.ledger import read_ledger
from recsys_data_tests.lake.conftest import PLACES
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.proxy import Fault, Proxy, proxy
from recsys_data_tests.support.rows import append, rows

pytestmark = [pytest.mark.integration, pytest.mark.parametrize("place", PLACES[1:2], indirect=True)]

# Which requests suffer, and how. Of each request, S3's client makes several attempts.
SURVIVED = {
    "throttled": Fault(action="refuse", every=3),
    "cut": Fault(action="cut", every=4),
    "slow": Fault(action="delay", every=2, seconds=0.2),
}


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before S3."""
    server = urlsplit(endpoint)
    with proxy(server.hostname or "", server.port or 80) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{running.port}")
        yield running


def count(open_notes: OpenLake) -> int:
    with answered(open_notes(), "SELECT count(*) AS n FROM notes") as result:
        return next(iter(result.batches))["n"][0].as_py()


@pytest.mark.parametrize("fault", SURVIVED.values(), ids=SURVIVED)
def test_faults_that_pass_are_survived(store: Proxy, open_notes: OpenLake, settings: Settings, fault: Fault) -> None:
    table = open_notes().table("notes")
    store.suffer(fault)
    for number in range(4):
        append(table, rows((f"e{number}", number % 2)), number + 1)
    assert count(open_notes) == 4
    assert store.stop() > 3
    assert read_ledger(open_notes().table("notes")).positions == {0: 4}


@pytest.mark.parametrize("action", ["refuse", "cut"])
def test_a_store_that_is_away_is_transient_and_nothing_is_lost(store: Proxy, open_notes: OpenLake, action: str) -> None:
    table = open_notes().table("notes")
    append(table, rows(("a", 0)), 1)
    store.suffer(Fault(action=action))  # pyright: ignore[reportArgumentType]
    began = time.monotonic()
    with pytest.raises(Transient, match="The warehouse cannot be used now: .*AWS Error"):
        append(table, rows(("b", 0)), 2)
    with pytest.raises(Transient, match="The warehouse cannot be used now"):
        open_notes().table("notes")
    assert time.monotonic() - began < 60
    store.stop()
    append(table, rows(("b", 0)), 2)
    assert count(open_notes) == 2


def test_a_query_of_a_store_that_is_away_says_so(store: Proxy, open_notes: OpenLake) -> None:
    append(open_notes().table("notes"), rows(("a", 0)), 1)
    store.suffer(Fault(".parquet", "refuse"))
    with pytest.raises((duckdb.Error, RecsysDataError)) as failed:
        count(open_notes)
    said = explain(failed.value)
    assert said
    assert re.fullmatch(r"The warehouse cannot be used now: .*AWS Error.* Try again\.", said)
