"""What is collected changes by an edit of YAML alone, from one consumer to the next."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from recsys_data.errors import ContractError, Permanent
from recsys_data.ingestion.streaming.consumer import Until
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.storage.query import connect
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.contract_files import builtin, columns_of, custom, load, of_stream, rule, rules_of
from recsys_data_tests.support.platform import Platform, view

Document = dict[str, Any]


def grown(platform: Platform, make_platform: MakePlatform, folder: Path, *documents: Document) -> Platform:
    """The same platform after an edit of its contracts."""
    platform.close()
    return make_platform(Path(platform.settings.dir), load(folder, *documents))


def kept(platform: Platform, event_id: str) -> Any:
    text = next(row["properties"] for row in platform.rows() if row["event_id"] == event_id)
    return text and json.loads(text)


def test_a_new_column_takes_its_field_from_then_on(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    colour = {"colour": "red", "size": {"eu": 42}, "delivered": "2026-01-09", "tags": ["a", None]}
    platform.append([view("old", **colour)])
    platform.consume()
    document = builtin("interactions")
    columns_of(document).extend(
        [
            {"name": "colour", "logicalType": "string"},
            {"name": "size_eu", "logicalType": "integer", "customProperties": custom(source="size.eu")},
            {"name": "delivered_on", "logicalType": "date", "customProperties": custom(source="delivered")},
            {"name": "tags", "logicalType": "array"},
            {"name": "shouted", "logicalType": "string", "transformLogic": "upper(colour)"},
        ]
    )
    platform = grown(platform, make_platform, tmp_path, document)
    platform.append([view("new", **colour, other=1), view("bad", delivered="2026-02-30"), view("none", delivered="")])
    platform.consume()
    new = {"colour": "red", "size_eu": 42, "delivered_on": date(2026, 1, 9), "tags": '["a",null]', "shouted": "RED"}
    found = {row["event_id"]: {name: row[name] for name in new} for row in platform.rows()}
    assert found == {"old": dict.fromkeys(new), "new": new, "none": dict.fromkeys(new)}
    assert (kept(platform, "old"), kept(platform, "new")) == (colour, {"other": 1})
    (letter,) = platform.rows("dead_letters")
    assert letter["reason"] == "unparseable_delivered_on"
    assert letter["detail"] == "delivered_on is '2026-02-30'; expected a date, e.g. 2026-01-02"
    with connect(platform.lake, ["interactions"]) as connection:
        assert connection.sql("SELECT event_id, colour FROM interactions ORDER BY 1").fetchall() == [
            *(("new", "red"), ("none", None), ("old", None))
        ]
    platform.assert_whole()


def test_a_new_rule_and_a_new_kind_hold_from_then_on(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    lines = [view("wish", type="wishlist"), view("free", value=0)]
    platform.append(lines)
    platform.consume()
    document = builtin("interactions")
    kinds = next(column for column in columns_of(document) if column["name"] == "type")
    kinds["enum"].append({"value": "wishlist", "description": "an item was wished for"})
    rules_of(document).append(rule("worthless", "value > 0", description="Everything has its price."))
    platform = grown(platform, make_platform, tmp_path, document)
    platform.append([*lines, view("free2", value=0)])
    platform.consume()
    assert platform.ids() == ["free", "wish"]
    assert sorted(row["reason"] for row in platform.rows("dead_letters")) == ["unknown_type", "worthless", "worthless"]
    assert {row["detail"] for row in platform.rows("dead_letters")} >= {"Everything has its price. Found value = 0.0."}


def test_an_event_that_no_dataset_takes_is_a_dead_letter(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    document = builtin("interactions")
    document["schema"][0]["customProperties"] = custom(stream="events", rowWhen="type = 'view'")
    platform = grown(platform, make_platform, tmp_path, document)
    platform.append([view("a"), view("b", type="click"), view("c", type="click", context={"page": "p"})])
    platform.consume()
    assert platform.ids() == ["a"]
    assert [row["reason"] for row in platform.rows("dead_letters")] == ["no_dataset", "no_dataset"]
    platform.assert_whole()


def test_an_event_that_makes_a_rule_fail_is_a_dead_letter_and_the_others_are_stored(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    failing = builtin("interactions")
    rules_of(failing).append(rule("small", "CAST(query AS INTEGER) < 10"))
    platform = grown(platform, make_platform, tmp_path, failing)
    platform.append([view("a", query="7"), view("b", query="boots"), view("c", query="11")])
    platform.consume()
    assert platform.ids() == ["a"]
    undecodable, small = sorted(platform.rows("dead_letters"), key=lambda row: row["reason"], reverse=True)
    assert (undecodable["reason"], small["reason"]) == ("undecodable", "small")
    assert undecodable["raw"] == view("b", query="boots")
    assert "source column query" in undecodable["detail"]
    assert "use TRY_CAST" in undecodable["detail"]
    assert "boots" not in undecodable["detail"], "what an event holds may be personal"
    platform.assert_whole()


SEARCHES = of_stream(
    "searches",
    {"name": "type", "logicalType": "string"},
    {"name": "query", "logicalType": "string", "classification": "personal"},
    {"name": "results", "logicalType": "integer", "customProperties": custom(source="results.count")},
    rowWhen="type = 'search'",
)


def test_a_new_dataset_is_fed_with_what_the_log_still_keeps(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    search = {"type": "search", "item_id": None, "query": "boots", "results": {"count": 3}}
    platform.append([view("a", **search), view("b"), view("a", **search)], writer=0)
    platform.append([view("c", **search), view("a", **search)], writer=1)
    platform.consume()
    platform = grown(platform, make_platform, tmp_path, SEARCHES)
    assert lag_of(platform.log, platform.lake).events == 5
    platform.append([view("d", **search)], writer=0)
    flushed = platform.consume()
    assert sum(one.read for one in flushed) == 1, "lines were counted again"
    rows = sorted((row["event_id"], row["query"], row["results"]) for row in platform.rows("searches"))
    assert rows == [(one, "boots", 3) for one in "acd"]
    assert kept(platform, "a") == {"results": {"count": 3}}
    assert kept(platform, "d") is None
    platform.assert_whole()


def test_a_new_dataset_begins_with_the_oldest_line_that_is_kept(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform(segment_bytes=300, log_retention_hours=0)
    for number in range(4):
        platform.append([view(f"e{number}", type="search", query="q")])
    platform.consume()
    assert platform.log.begin_offsets() != dict.fromkeys(platform.log.partitions(), 0)
    platform = grown(platform, make_platform, tmp_path, SEARCHES)
    assert lag_of(platform.log, platform.lake).events == 1
    platform.consume()
    assert platform.ids("searches") == ["e3"]
    assert len(platform.ids()) == 4
    assert positions_of(platform.lake) == {p: end for p, end in platform.log.end_offsets().items() if end}


def test_what_a_stored_dataset_cannot_follow_is_refused_and_nothing_is_read(
    platform: Platform, make_platform: MakePlatform, tmp_path: Path
) -> None:
    platform.append([view("a")])
    platform.consume()
    platform.append([view("b")])
    document = builtin("interactions")
    columns_of(document)[:] = [column for column in columns_of(document) if column["name"] != "tag"]
    changed = grown(platform, make_platform, tmp_path, document)
    with pytest.raises(ContractError, match="column tag is stored but no longer in the contract"):
        changed.consume()
    back = grown(changed, make_platform, tmp_path, builtin("interactions"))
    back.consume()
    back.assert_whole()


def test_a_log_that_lost_what_the_lake_has_not_read_is_an_error(platform: Platform) -> None:
    platform.append([view("a"), view("b")])
    platform.consume()
    (segment,) = [path for path in platform.settings.log_dir.rglob("*.ndjson") if path.stat().st_size]
    segment.write_bytes(b"")
    with pytest.raises(Permanent, match="the log was replaced or lost data"):
        platform.consume(Until())
