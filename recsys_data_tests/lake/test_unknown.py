"""The answer to a commit is lost on its way, and the commit is there or not: nothing is lost, nothing is doubled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from recsys_data.contracts import Contract
from recsys_data.settings import Settings
from recsys_data.storage.ledger import accepted_losses
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.lake.conftest import PLACES
from recsys_data_tests.storage.test_unknown_commits import KINDS, _accept, ids, table
from recsys_data_tests.support.lakes import Place
from recsys_data_tests.support.proxy import Fault, Proxy, proxy

if TYPE_CHECKING:
    from pyiceberg.table import Table

pytestmark = pytest.mark.integration
__all__ = ["table"]

# By which a request to commit is known.
COMMITS = {"postgresql": "COMMIT", "glue": "AWSGlue.UpdateTable", "http": "POST /v1/namespaces/recsys/tables/notes "}


@pytest.fixture
def catalog_proxy(place: Place, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Iterator[Proxy]:
    """Before the catalog."""
    server = urlsplit(endpoint if place.catalog.startswith("glue:") else place.catalog)
    with proxy(server.hostname or "", server.port or 5432) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", f"http://127.0.0.1:{running.port}")
        yield running


@pytest.fixture
def settings(tmp_path: Path, place: Place, catalog_proxy: Proxy) -> Settings:
    catalog = place.catalog
    if not catalog.startswith("glue:"):
        parts = urlsplit(catalog)
        catalog = parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{catalog_proxy.port}").geturl()
    return Settings(dir=str(tmp_path / "data"), warehouse=place.warehouse, catalog=catalog)


@pytest.mark.parametrize("place", PLACES[1:], indirect=True)
@pytest.mark.parametrize("action", ["lose", "cut"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_commit_whose_answer_is_lost_is_made_once(
    kind: Callable[["Table"], None],
    action: str,
    table: "Table",
    catalog_proxy: Proxy,
    settings: Settings,
    notes: Contract,
) -> None:
    before = table.metadata.last_sequence_number
    match = COMMITS[settings.catalog.partition(":")[0]]
    catalog_proxy.suffer(Fault(match, action, times=2))  # pyright: ignore[reportArgumentType]
    kind(table)
    assert catalog_proxy.stop() >= 1
    lake: Lake = open_lake(settings, {"notes": notes})
    stored = lake.table("notes")
    assert ids(stored) == KINDS[kind]
    assert stored.metadata.last_sequence_number == before + (kind is not _accept)
    assert (accepted_losses(stored) == 1) == (kind is _accept)
    # Nothing that the table refers to was taken for the rest of a commit that failed.
    for snapshot in stored.metadata.snapshots:
        for manifest in snapshot.manifests(stored.io):
            manifest.fetch_manifest_entry(stored.io)
