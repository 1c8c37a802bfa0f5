"""Old days leave the lake as the contract says, the ledger still balances, and histories outlive their snapshots."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts.model import history_name
from recsys_data.errors import ContractError, Permanent, UserError
from recsys_data.ingestion.batch import partitions, retention
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.ingestion.batch.partitions import arrived_days
from recsys_data.ingestion.batch.retention import expire
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.contract_files import builtin, load_one
from recsys_data_tests.support.platform import view
from recsys_data_tests.support.snapshots import Batch

NAME = "item_catalog"
NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)


def keeping(name: str, value: Any, unit: str | None = "d") -> dict[str, Any]:
    document = builtin(name)
    document["slaProperties"].append({"property": "retention", "value": value, **({"unit": unit} if unit else {})})
    return document


class Clock(datetime):
    """What time it is for whoever takes snapshots."""

    moment = datetime(2026, 1, 5, 12, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """It is the fifth of January 2026, until it is set."""
    monkeypatch.setattr(Clock, "moment", Clock.moment)
    monkeypatch.setattr(retention, "datetime", Clock)
    monkeypatch.setattr(partitions, "datetime", Clock)
    return Clock


@pytest.fixture
def batch(tmp_path: Path, clock: type[Clock]) -> Batch:
    """A catalogue of five days, of which the contract keeps three; on each day another item is new."""
    batch = Batch.of(tmp_path, keeping(NAME, 3))
    for number in range(5, 10):
        rows = [{"item_id": f"i{n}", "title": f"T{n}"} for n in range(5, number + 1)]
        batch.land(NAME, f"2026-01-{number:02d}", rows)
    return batch


def take_all(batch: Batch, *days: int) -> None:
    for day in days:
        batch.take(NAME, f"2026-01-{day:02d}", accept=True)


def bring(batch: Batch) -> None:
    refresh_history(batch.lake, NAME, batch.folder / "staging")


def periods(batch: Batch) -> list[tuple[Any, ...]]:
    return [(row["item_id"], row["valid_from"], row["valid_to"]) for row in batch.rows(history_name(NAME))]


def stored(batch: Batch) -> list[int]:
    return sorted({row["snapshot_date"].day for row in batch.rows(NAME)})


@pytest.mark.parametrize(("value", "unit", "days"), [(3, "d", 3), (2, "y", 730), (1, "years", 365), (400, "days", 400)])
def test_retention_is_read_from_the_contract(tmp_path: Path, value: int, unit: str, days: int) -> None:
    assert load_one(tmp_path, keeping(NAME, value, unit)).retention == timedelta(days=days)


@pytest.mark.parametrize(("value", "unit"), [(0, "d"), (3, "m"), (3, None), ("3", "d"), (1.5, "y"), (10**9, "y")])
def test_retention_that_is_none_is_refused(tmp_path: Path, value: Any, unit: str | None) -> None:
    with pytest.raises(ContractError, match="retention"):
        load_one(tmp_path, keeping(NAME, value, unit))


def test_without_retention_everything_stays(make_platform: MakePlatform) -> None:
    platform = make_platform()
    platform.append([view("old", day=1)])
    platform.consume()
    assert expire(platform.lake, "interactions", NOW + timedelta(days=9999)).kept_since is None
    assert platform.ids() == ["old"]


def test_old_days_of_a_stream_are_retired_and_the_ledger_balances(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform(given=Batch.of(tmp_path, keeping("interactions", 3)).contracts)
    platform.append([view(f"{day}", day=day) for day in (1, 2, 6, 7, 9)])
    platform.consume()
    done = expire(platform.lake, "interactions", NOW)
    assert (done.kept_since, done.days, done.rows) == (date(2026, 1, 7), 3, 3)
    assert platform.ids() == ["7", "9"]
    assert expire(platform.lake, "interactions", NOW).rows == 0
    # A late event is stored, and expires the next night; so does a redelivery of what has expired, whose id is no
    # longer in the deduplication index, because no table holds it.
    platform.append([view("late", day=2), view("1", day=1), view("9", day=9)])
    platform.consume()
    assert platform.ids() == ["1", "7", "9", "late"]
    assert platform.counts()[2] == 1
    assert expire(platform.lake, "interactions", NOW).rows == 2
    assert reconcile_lake(platform.lake, platform.settings).balanced
    platform.append([view("new", day=9)])
    platform.consume()
    assert platform.ids() == ["7", "9", "new"]
    assert reconcile_lake(platform.lake, platform.settings).balanced
    assert (platform.removed("interactions").expired, len(platform.rows())) == (5, 3)


def test_a_history_outlives_the_snapshots_that_it_is_made_of(batch: Batch, tmp_path_factory: Any) -> None:
    take_all(batch, 5, 6, 7)
    bring(batch)
    assert expire(batch.lake, NAME, NOW).days == 2
    assert stored(batch) == [7]
    before = periods(batch)
    bring(batch)
    assert periods(batch) == before
    take_all(batch, 8)
    bring(batch)
    whole = Batch.of(tmp_path_factory.mktemp("whole"), keeping(NAME, 30))
    for day in range(5, 9):
        whole.land(
            NAME, f"2026-01-0{day}", (batch.folder / f"data/landing/{NAME}/2026-01-0{day}/part.jsonl").read_text()
        )
        take_all(whole, day)
    bring(whole)
    assert periods(batch) == periods(whole)
    # Taking a kept day again undoes and makes again what came after it, and nothing before.
    batch.land(NAME, "2026-01-08", [{"item_id": "i5", "title": "other"}])
    take_all(batch, 8)
    bring(batch)
    assert [row for row in periods(batch) if row[2] is None] == [("i5", datetime(2026, 1, 9, tzinfo=UTC), None)]


def test_no_snapshot_goes_before_the_history_has_it(batch: Batch) -> None:
    take_all(batch, 5, 6)
    assert expire(batch.lake, NAME, NOW).days == 0
    bring(batch)
    batch.land(NAME, "2026-01-06", [{"item_id": "i5", "title": "changed"}])
    take_all(batch, 6, 7)
    assert expire(batch.lake, NAME, NOW).days == 1
    assert stored(batch) == [6, 7]
    bring(batch)
    assert expire(batch.lake, NAME, NOW).days == 1
    assert stored(batch) == [7]


def test_the_newest_snapshot_stays_however_old_it_is(batch: Batch) -> None:
    take_all(batch, 5, 6)
    bring(batch)
    assert expire(batch.lake, NAME, NOW + timedelta(days=99)).days == 1
    assert stored(batch) == [6]


def test_a_day_that_is_no_longer_kept_is_not_taken(batch: Batch, clock: type[Clock]) -> None:
    clock.moment = NOW
    assert [day.day for day in arrived_days(batch.lake, batch.contracts[NAME], batch.settings)] == [7, 8, 9]
    with pytest.raises(UserError, match="2026-01-06 is older than item_catalog is kept: since 2026-01-07"):
        take_all(batch, 6)


def test_a_history_that_would_need_what_is_gone_says_so(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    take_all(batch, 7, 8)
    bring(batch)
    expire(batch.lake, NAME, NOW + timedelta(days=1))
    assert stored(batch) == [8]
    before = periods(batch)
    plan = history.make_plan
    # As if the key of the contract had been changed.
    monkeypatch.setattr(history, "make_plan", lambda state, days, key: plan(state, days, ("other",)))
    with pytest.raises(Permanent, match="cannot be made again from 2026-01-07"):
        bring(batch)
    assert periods(batch) == before
