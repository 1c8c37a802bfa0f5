"""One day's state becomes a snapshot: validated, compared with the last good one, and published as a whole."""

import json
import re
import shutil
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.batch import snapshot
from recsys_data.ingestion.batch.history.update import refresh_history
from recsys_data.ingestion.batch.partitions import stored_days
from recsys_data.ingestion.batch.quarantine import quarantined
from recsys_data.ingestion.batch.snapshot import accept_snapshot
from recsys_data.sources import extract
from recsys_data.sources.files.resting import at_rest
from recsys_data.storage.query import connect
from recsys_data_tests.support.contract_files import custom, rule
from recsys_data_tests.support.snapshot_contracts import AREA, CITY, OPENS, STORE_ID, STORES, TAGS, limit, stores
from recsys_data_tests.support.snapshots import Batch

LIMITS = (limit("sudden_loss", maxShareLost=0.4), limit("sudden_change", maxShareChanged=0.5))


def some(count: int, **members: Any) -> list[dict[str, Any]]:
    return [{"store_id": f"s{n}", "city": "Rome"} | members for n in range(count)]


def today() -> date:
    return datetime.now(UTC).date()


def test_a_landed_day_becomes_its_snapshot(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    row = {"store_id": "s1", "city": "Łódź", "area": 12.5, "tags": ["a", "b"], "opens_at": "2026-01-05T09:00:00+01:00"}
    batch.land("stores", "2026-01-01", [row, {"store_id": "s2"}])
    taken = batch.take("stores", "2026-01-01")
    assert (taken.violation, taken.compared.rows, taken.rejected) == (None, 2, {})
    first, second = batch.rows("stores", "store_id")
    assert first == {
        "store_id": "s1",
        "city": "Łódź",
        "area": Decimal("12.50"),
        "tags": ["a", "b"],
        "opens_at": datetime(2026, 1, 5, 8, tzinfo=UTC),
        "snapshot_date": date(2026, 1, 1),
        "as_of": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert (second["store_id"], second["city"], second["tags"]) == ("s2", None, None)


@pytest.mark.parametrize(("name", "other"), [("d[1]", "d1"), ("d*", "dx"), ("d?", "dx"), ("d[", "dx")])
def test_a_state_folder_whose_name_looks_like_a_pattern_is_read_and_no_other(
    tmp_path: Path, name: str, other: str
) -> None:
    (tmp_path / name).mkdir()
    batch = Batch.of(tmp_path / name, stores())
    for day in ("2026-01-01", "2026-01-02"):
        batch.land("stores", day, some(int(day[-1])))
        batch.take("stores", day)
    shutil.copytree(tmp_path / name, tmp_path / other)
    for file in (tmp_path / other).rglob("*.parquet"):
        file.write_bytes(b"of another")
    refresh_history(batch.lake, "stores", tmp_path / name / "staging")
    with connect(batch.lake, ["stores", "stores_history"]) as connection:
        assert connection.sql("SELECT count(*) FROM stores").fetchall() == [(3,)]
        assert connection.sql("SELECT count(*) FROM stores_history WHERE is_current").fetchall() == [(2,)]


def test_rows_that_quotes_tear_and_keys_that_stand_twice_are_malformed(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    batch.land("stores", "2026-01-01", 'store_id,city\ns1,"Ro" me\ns2,"a\ns3,b" c\ns4,Rome\n', "part.csv")
    assert batch.take("stores", "2026-01-01").rejected == {"malformed_row": 3}
    batch.land("stores", "2026-01-02", '{"store_id":"s1","city":"a","city":"b"}\n{"store_id":"s4","area":"?"}\n')
    assert batch.take("stores", "2026-01-02").rejected == {"malformed_row": 1, "wrong_type": 1}
    details = [row["detail"] for row in batch.rows("stores_rejected")]
    assert any("the key city stands more than once" in detail for detail in details)
    assert any(detail.startswith("line 4 of part.csv: found text after the quote") for detail in details)


def test_a_file_that_is_still_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.of(tmp_path, stores())
    path = batch.land("stores", "2026-01-01", some(2))
    rows = [json.dumps({"store_id": f"more{n}"}) + "\n" for n in range(3)]
    slept: list[float] = []

    def write(seconds: float) -> None:
        slept.append(seconds)
        if rows:
            with path.open("a") as file:
                file.write(rows.pop())

    monkeypatch.setattr(extract, "at_rest", partial(at_rest, sleep=write))
    settings = msgspec.structs.replace(batch.settings, landing_rest_seconds=5)
    assert snapshot.take_snapshot(batch.lake, settings, "stores", date(2026, 1, 1)).compared.rows == 5
    assert len(slept) == 4


def test_taking_a_day_again_replaces_it_and_leaves_the_others(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    for day in ("2026-01-01", "2026-01-02"):
        batch.land("stores", day, some(2))
        batch.take("stores", day)
    batch.land("stores", "2026-01-01", some(3))
    batch.take("stores", "2026-01-01")
    found = [(row["snapshot_date"].day, row["store_id"]) for row in batch.rows("stores", "snapshot_date, store_id")]
    assert found == [(1, "s0"), (1, "s1"), (1, "s2"), (2, "s0"), (2, "s1")]


def test_rows_that_break_the_contract_are_kept_with_their_reason(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores(quality=(rule("too_small", "area > 5", description="A store has room."),)))
    rows = [
        {"store_id": "good", "area": 10},
        {"store_id": "small", "area": 1},
        {"store_id": "odd", "area": "much"},
        {"store_id": "good", "area": 11},
        {"city": "Rome", "area": 12},
    ]
    batch.land("stores", "2026-01-01", rows)
    taken = batch.take("stores", "2026-01-01")
    assert taken.rejected == {"duplicate_key": 1, "missing_store_id": 1, "too_small": 1, "wrong_type": 1}
    assert [(row["store_id"], row["area"]) for row in batch.rows("stores")] == [("good", Decimal("10.00"))]
    refused = {row["reason"]: row for row in batch.rows("stores_rejected")}
    assert json.loads(refused["too_small"]["row_key"]) == {"store_id": "small"}
    assert refused["too_small"]["detail"] == "A store has room."
    assert "area" in refused["wrong_type"]["detail"]
    assert "much" in refused["wrong_type"]["detail"]
    assert json.loads(refused["missing_store_id"]["row"])["city"] == "Rome"
    assert json.loads(refused["duplicate_key"]["row"])["area"] == 11


def test_taking_a_mended_day_again_clears_its_refused_rows(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    batch.land("stores", "2026-01-01", [{"store_id": "a", "area": "much"}])
    batch.take("stores", "2026-01-01")
    assert len(batch.rows("stores_rejected")) == 1
    batch.land("stores", "2026-01-01", [{"store_id": "a", "area": 7}])
    batch.take("stores", "2026-01-01")
    assert batch.rows("stores_rejected") == []
    assert len(batch.rows("stores")) == 1


@pytest.mark.parametrize(
    ("second", "violated"),
    [
        (some(4), r"sudden_loss: 6 of 10 rows of 2026-01-01 are gone \(60.0%\); at most 40% may be"),
        (some(10, city="Oslo"), "sudden_change: 10 of 10 rows of 2026-01-01 are different"),
    ],
    ids=["lost", "changed"],
)
def test_a_snapshot_beyond_the_limits_is_held_back_until_it_is_accepted(
    tmp_path: Path, second: list[dict[str, Any]], violated: str
) -> None:
    batch = Batch.of(tmp_path, stores(quality=LIMITS))
    batch.land("stores", "2026-01-01", some(10))
    batch.take("stores", "2026-01-01")
    landed = batch.land("stores", "2026-01-02", second)
    held = batch.take("stores", "2026-01-02").violation
    assert held is not None
    assert re.search(violated, held)
    assert stored_days(batch.lake, "stores") == [date(2026, 1, 1)]
    assert [one.day for one in quarantined(batch.settings, "stores")] == [date(2026, 1, 2)]
    # What is accepted is what was read, not what the source says by now.
    landed.write_text("")
    accepted = accept_snapshot(batch.lake, batch.settings, "stores", date(2026, 1, 2))
    assert (accepted.violation, accepted.compared.rows) == (None, len(second))
    assert stored_days(batch.lake, "stores") == [date(2026, 1, 1), date(2026, 1, 2)]
    assert quarantined(batch.settings, "stores") == []


def test_a_snapshot_beyond_the_limits_can_be_accepted_in_advance(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores(quality=LIMITS))
    for day, count in (("2026-01-01", 10), ("2026-01-02", 1)):
        batch.land("stores", day, some(count))
        assert batch.take("stores", day, accept=True).violation is None


def test_a_good_snapshot_takes_the_place_of_one_that_was_held_back(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores(quality=LIMITS))
    for day, count in (("2026-01-01", 10), ("2026-01-02", 1), ("2026-01-02", 9)):
        batch.land("stores", day, some(count))
        batch.take("stores", day)
    assert quarantined(batch.settings, "stores") == []
    with pytest.raises(UserError, match="stores 2026-01-02 is not on hold"):
        accept_snapshot(batch.lake, batch.settings, "stores", date(2026, 1, 2))


def test_a_late_day_is_compared_with_the_day_before_it(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores(quality=LIMITS))
    for day, count in (("2026-01-01", 2), ("2026-01-05", 3), ("2026-01-03", 2)):
        batch.land("stores", day, some(count))
        taken = batch.take("stores", day)
        assert taken.violation is None
    assert taken.compared.previous_day == date(2026, 1, 1)
    assert (taken.compared.new, taken.compared.lost, taken.compared.changed) == (0, 0, 0)


@pytest.mark.parametrize("step", ["publish", "quarantine"])
def test_what_breaks_midway_leaves_the_last_good_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch = Batch.of(tmp_path, stores(quality=LIMITS))
    batch.land("stores", "2026-01-01", some(4))
    batch.take("stores", "2026-01-01")
    batch.land("stores", "2026-01-01", some(5))
    if step == "quarantine":
        batch.land("stores", "2026-01-02", some(1))

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(snapshot, step, broken)
    with pytest.raises(KeyboardInterrupt):
        batch.take("stores", "2026-01-01" if step == "publish" else "2026-01-02")
    monkeypatch.undo()
    assert len(batch.rows("stores")) == 4
    assert not list((batch.settings.data_dir / "ingest" / "staging").iterdir())
    assert batch.take("stores", "2026-01-01").compared.rows == 5


def test_a_day_that_is_not_there_is_explained(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    batch.land("stores", "2026-01-01", some(1))
    with pytest.raises(UserError, match="2026-01-03") as raised:
        batch.take("stores", "2026-01-03")
    assert "2026-01-01" in str(raised.value)


def test_a_source_without_the_key_is_explained(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path, stores())
    batch.land("stores", "2026-01-01", [{"city": "Rome"}])
    with pytest.raises(UserError, match=r"no source of 2026-01-01 has store_id.*found city"):
        batch.take("stores", "2026-01-01")


def test_several_sources_are_joined_by_the_precedence_of_each_column(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path)
    url = batch.database(
        "CREATE TABLE shops (id TEXT, town TEXT, area TEXT)",
        "INSERT INTO shops VALUES ('s1', 'Rome', '10.5'), ('s2', NULL, '20'), ('s3', 'Oslo', NULL)",
    )
    servers = [
        {
            "server": "shop",
            "type": "custom",
            "location": url,
            "customProperties": [
                {"property": "table", "value": "shops"},
                {"property": "columns", "value": {"store_id": "id", "city": "town"}},
            ],
        },
        {"server": "crm", "type": "local", "path": "{data_dir}/crm/{day}/*.csv", "format": "csv"},
    ]
    first = CITY | {"customProperties": [{"property": "from", "value": ["crm", "shop"]}]}
    batch = Batch.of(tmp_path, stores(STORE_ID, first, AREA, TAGS, OPENS, servers=servers))
    yesterday = today() - timedelta(days=1)
    folder = batch.settings.data_dir / "crm" / yesterday.isoformat()
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text('store_id,city,tags\ns1,Roma,"[""x""]"\ns2,Paris,\ns9,Nowhere,\ns2,Lyon,\n')
    taken = batch.take("stores", today().isoformat())
    found = {row["store_id"]: row for row in batch.rows("stores")}
    assert set(found) == {"s1", "s2", "s3"}
    assert [found[one]["city"] for one in ("s1", "s2", "s3")] == ["Roma", "Paris", "Oslo"]
    assert [found[one]["area"] for one in ("s1", "s2", "s3")] == [Decimal("10.50"), Decimal("20.00"), None]
    assert found["s1"]["tags"] == ["x"]
    assert taken.sources == {"shop": 3, "crm": 4}
    assert taken.rejected == {"duplicate_key": 1}
    # A database is known as of the moment it was read.
    assert abs(datetime.now(UTC) - found["s1"]["as_of"]) < timedelta(minutes=5)


def test_a_source_that_adds_rows_gives_those_that_the_first_lacks(tmp_path: Path) -> None:
    servers = [
        {"server": "a", "type": "local", "path": "{data_dir}/a/{day}/*", "format": "auto"},
        {
            "server": "b",
            "type": "local",
            "path": "{data_dir}/b/{day}/*",
            "format": "auto",
            "customProperties": [{"property": "addsRows", "value": True}],
        },
    ]
    batch = Batch.of(tmp_path, stores(servers=servers))
    for server, rows in (("a", some(2)), ("b", some(3, city="Oslo"))):
        folder = batch.settings.data_dir / server / "2026-01-01"
        folder.mkdir(parents=True)
        (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch.take("stores", "2026-01-01")
    assert [(r["store_id"], r["city"]) for r in batch.rows("stores")] == [
        ("s0", "Rome"),
        ("s1", "Rome"),
        ("s2", "Oslo"),
    ]


def test_only_today_is_known_to_a_database(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path)
    url = batch.database("CREATE TABLE stores (store_id TEXT)")
    server = {"server": "shop", "type": "custom", "location": url, "customProperties": custom(table="stores")}
    batch = Batch.of(tmp_path, stores(*STORES, servers=[server]))
    with pytest.raises(UserError, match="today"):
        batch.take("stores", "2026-01-01")


def test_what_needs_consent_is_kept_with_it_only(tmp_path: Path) -> None:
    batch = Batch.of(tmp_path)
    profiles = [
        {"user_id": "yes", "birth_year": 1980, "gender": "f", "consent_profiling": True},
        {"user_id": "no", "birth_year": 1980, "gender": "f", "consent_profiling": False},
        {"user_id": "unsaid", "birth_year": 1980, "gender": "f"},
    ]
    batch.land("user_profiles", "2026-01-01", profiles)
    assert batch.take("user_profiles", "2026-01-01").rejected == {}
    found = {row["user_id"]: (row["birth_year"], row["gender"]) for row in batch.rows("user_profiles")}
    assert found == {"yes": (1980, "f"), "no": (None, None), "unsaid": (None, None)}
