"""Maintenance by Spark: consumers go on beside it, and everybody reads the same rows as before."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recsys_data.days import day_number
from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.storage.guard.read_only import answered
from recsys_data.storage.iceberg.manifest_stats import upper_bound
from recsys_data.storage.maintenance import compaction
from recsys_data.storage.maintenance.compaction import compact_days, engine_of, maintain_table
from recsys_data.storage.maintenance.engine import Engine, Rewritten
from recsys_data.storage.maintenance.orphans import references
from recsys_data.storage.spark.maintenance import FORKS
from recsys_data.storage.spark.session import catalog_options
from recsys_data_tests.ingestion.conftest import MakePlatform, contracts, make_platform, sessions
from recsys_data_tests.support.lakes import database
from recsys_data_tests.support.platform import Platform, view
from recsys_data_tests.support.spark.sessions import spark_settings

if TYPE_CHECKING:
    from pyiceberg.table import Table

__all__ = ["contracts", "make_platform", "sessions"]

TODAY = day_number(date(2026, 1, 31))
# py4j opens a connection for each thread, and leaves it to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["sqlite", "postgresql"])
def platform(
    request: pytest.FixtureRequest, make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    monkeypatch.setattr(compaction, "SMALL_FILES", 2)
    with database() if request.param == "postgresql" else contextlib.nullcontext("") as catalog:
        yield make_platform(tmp_path / "data", catalog=catalog, **spark_settings())


def files(table: "Table") -> int:
    return sum(1 for _ in table.refresh().scan().plan_files())


def feed(platform: Platform, first: int, commits: int) -> None:
    """Commits of some events of three days each."""
    for number in range(first, first + commits):
        platform.append([view(f"e{number}-{day}", day=day, position=day) for day in (1, 2, 3)], writer=number % 2)
        platform.consume()


@pytest.mark.integration
def test_a_compaction_beside_a_running_consumer_loses_nothing_and_doubles_nothing(platform: Platform) -> None:
    feed(platform, 0, 2)
    table = platform.lake.table("interactions")
    assert files(table) == 6
    done, errors, fed = threading.Event(), [], 2

    def consume() -> None:
        nonlocal fed
        try:
            while not done.wait(0.05):
                feed(platform, fed, 1)
                fed += 1
        except BaseException as error:
            errors.append(error)
            raise

    def wait_for(commits: int) -> None:
        until, deadline = fed + commits, time.monotonic() + 300
        while fed < until and not errors and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fed >= until

    class Beside:
        """Spark, that finds a table of eleven commits ago, and is overtaken by more."""

        def __init__(self, engine: Engine) -> None:
            self.references, self._rewrite_days = engine.references, engine.rewrite_days

        def rewrite_days(self, table: "Table", days: Sequence[int]) -> Rewritten:
            wait_for(commits=11)
            assert not Path(table.metadata_location).exists()
            rewritten = self._rewrite_days(table, days)
            wait_for(commits=2)
            return rewritten

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        own = platform.open_lake()
        replaced = compact_days(own.table("interactions"), TODAY, engine=Beside(engine_of(own)))
    finally:
        done.set()
        consumer.join()
    assert not errors
    assert replaced >= 6
    feed(platform, fed, 1)
    platform.assert_whole()
    assert len(platform.ids()) == 3 * (fed + 1)
    with answered(platform.open_lake(), "SELECT count(DISTINCT event_id) AS ids FROM interactions") as found:
        assert next(iter(found.batches)).to_pylist() == [{"ids": 3 * (fed + 1)}]
    assert files(table) < 3 * (fed + 1)
    assert platform.lake.catalog.list_tables(FORKS) == []


@pytest.mark.integration
def test_maintenance_by_spark_keeps_all_that_others_read(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SNAPSHOTS_KEPT", -timedelta(minutes=1))
    feed(platform, 0, 2)
    lake, before = platform.lake, platform.rows()
    table = lake.table("interactions")
    properties, spec, schema = table.properties, table.spec(), table.schema()
    newest = {field: _newest(table, field) for field in ("event_ts", "log_offset", "ingested_at")}
    assert set(engine_of(lake).references(table.refresh())) == set(references(table))
    stray = Path(table.location(), "data", "stray.parquet")
    stray.write_bytes(b"PAR1")
    now = datetime.now(UTC)
    first = maintain_table(lake, "interactions", now)
    assert (first.files_before, first.files_after, first.orphans.removed) == (6, 3, 0)
    assert first.expired > 0
    assert sorted(map(str, platform.rows())) == sorted(map(str, before))
    table.refresh()
    assert (table.properties, table.spec(), table.schema()) == (properties, spec, schema)
    assert {field: _newest(table, field) for field in newest} == newest
    second = maintain_table(lake, "interactions", now + timedelta(days=1))
    assert second.orphans.removed > 6
    assert not stray.exists()
    # A consumer that starts again finds in these files what it has stored.
    platform.append([view("e0-1"), view("new")])
    platform.consume()
    platform.assert_whole()
    assert (platform.ledger().duplicates, len(platform.ids())) == (1, 7)


def test_a_catalog_that_spark_is_not_set_up_for_is_refused() -> None:
    with pytest.raises(UserError, match="works with catalogs on SQLite and PostgreSQL"):
        catalog_options(Settings(engine="local[2]", catalog="glue://eu-west-1"))


def test_the_password_of_a_catalog_is_an_option_of_its_own() -> None:
    options = catalog_options(Settings(engine="sc://spark:15002", catalog="postgresql://me:swordfish@db:6432/lake"))
    assert options["spark.sql.catalog.recsys_data.uri"] == "jdbc:postgresql://db:6432/lake"
    assert options["spark.sql.catalog.recsys_data.jdbc.password"] == "swordfish"
    assert [name for name, value in options.items() if "swordfish" in value] == [
        "spark.sql.catalog.recsys_data.jdbc.password"
    ]


def _newest(table: "Table", column: str) -> object:
    field = table.refresh().schema().find_field(column)
    bounds = [upper_bound(task.file, field) for task in table.scan().plan_files()]
    assert None not in bounds
    return max(bounds)
