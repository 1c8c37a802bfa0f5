"""Where an event is: every place it can be in is found and named, and nothing else is."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.days import day_number
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.monitoring.trace import log_search
from recsys_data.monitoring.trace.log_search import id_of, lines_of
from recsys_data.monitoring.trace.rows import MOST
from recsys_data.monitoring.trace.trace import trace
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data.storage.tables import Lake
from recsys_data_tests.support.platform import view

Ingest = Callable[[], None]


def test_a_stored_event_is_shown_with_its_file_and_commit(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("other"), view("a", day=3, context={"device": {"type": "phone"}})])
    ingest()
    found = trace(log, lake, "a")
    assert found.state == "stored" and found.log == [] and found.dead_letters == []
    assert {one.dataset for one in found.stored} == {"interactions", "contexts"}
    for one in found.stored:
        table = lake.table(one.dataset)
        assert one.day == "2026-01-03"
        assert Path(one.file).is_file() and one.file in str([t.file.file_path for t in table.scan().plan_files()])
        snapshot = table.metadata.snapshot_by_id(one.snapshot or 0)
        assert snapshot and one.added_at == datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
        assert one.received_at == datetime(2026, 1, 31, tzinfo=UTC)
        assert one.ingested_at and one.received_at
        assert one.seconds == round((one.ingested_at - one.received_at).total_seconds(), 3)
        assert one.row is None, "personal columns without being asked for"
        assert log.read(one.log_partition, one.log_offset, 1).line(0) == view(
            "a", day=3, context={"device": {"type": "phone"}}
        )


def test_columns_are_given_when_asked_for(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a")])
    ingest()
    row = trace(log, lake, "a", rows=True).stored[0].row
    assert row and (row["user_id"], row["item_id"]) == ("u1", "i1")
    assert set(row) == {column.name for column in lake.contracts["interactions"].columns}


def test_an_event_of_a_compacted_day_is_found_in_its_new_file(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a")])
    ingest()
    before = trace(log, lake, "a").stored[0]
    log.append([view("b")])
    ingest()
    assert compact_day(lake.table("interactions"), day_number(date(2026, 1, 1))) == 2
    after = trace(log, lake, "a").stored[0]
    assert (after.log_partition, after.log_offset) == (before.log_partition, before.log_offset)
    assert after.file != before.file and after.snapshot != before.snapshot
    assert after.ingested_at == before.ingested_at


def test_a_waiting_event_says_what_lies_before_it(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("first")])
    ingest()
    before = view("second")
    log.append([before, view("a"), view("aa")])
    found = trace(log, lake, "a")
    assert found.state == "waiting"
    assert [(one.state, one.bytes_before) for one in found.log] == [("waiting", len(before) + 1)]
    ingest()
    assert trace(log, lake, "a").state == "stored"


def test_it_waits_also_before_there_is_any_table(log: EventLog, lake: Lake) -> None:
    log.append([view("a")])
    assert trace(log, lake, "a").state == "waiting"
    assert not any(lake.exists(name) for name in lake.contracts)


def test_deliveries_again_are_reported_from_those_that_wait(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a")])
    ingest()
    log.append([view("a"), view("b"), view("a")])
    ingest()
    log.append([view("a")])
    found = trace(log, lake, "a")
    assert found.state == "stored" and len(found.stored) == 1
    assert [one.state for one in found.log] == ["duplicate", "duplicate", "waiting"]
    again = f"{found.log[0].log_partition}:{found.log[0].log_offset}"
    assert trace(log, lake, again).state == "stored", "a dropped line is no lost line"


def test_a_dead_letter_is_found_by_id_and_by_place(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("good"), view("a", item_id=None, note="\x1b[31m")])
    ingest()
    found = trace(log, lake, "a")
    assert found.state == "rejected" and found.log == []
    (dead,) = found.dead_letters
    assert (dead.reason, dead.raw, dead.bytes) == ("missing_item", None, len(view("a", item_id=None, note="\x1b[31m")))
    (again,) = trace(log, lake, f"{dead.log_partition}:{dead.log_offset}", rows=True).dead_letters
    assert again.raw and "\x1b" not in again.raw and '"event_id": "a"' in again.raw
    assert trace(log, lake, f"{dead.log_partition}:{dead.log_offset + 1}").state == "nowhere"


def test_a_dead_letter_whose_id_could_not_be_read_is_found_while_the_log_keeps_it(
    log: EventLog, lake: Lake, ingest: Ingest
) -> None:
    log.append([b'{"event_id": "torn", "type": "vi', b'{"event_id": "caf\xc3\xa9", "user_id": "\xff"}'])
    assert trace(log, lake, "torn").state == "waiting"
    ingest()
    for event_id in ("torn", "café"):
        found = trace(log, lake, event_id, rows=True)
        assert (found.state, len(found.dead_letters), found.log) == ("rejected", 1, [])


def test_an_id_that_was_refused_once_and_taken_later_is_both(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a", item_id=None), view("a")])
    ingest()
    found = trace(log, lake, "a")
    assert (found.state, len(found.stored), len(found.dead_letters)) == ("stored", 1, 1)
    dead = found.dead_letters[0]
    assert trace(log, lake, f"{dead.log_partition}:{dead.log_offset}").state == "rejected"


def test_of_very_many_deliveries_some_are_listed_and_all_are_reported(
    log: EventLog, lake: Lake, ingest: Ingest
) -> None:
    log.append([view("a", item_id=None)] * (MOST + 50))
    ingest()
    found = trace(log, lake, "a")
    assert (found.state, len(found.dead_letters), found.log, found.more > 0) == ("rejected", MOST, [], True)


def test_a_row_that_was_lost_is_unaccounted_for(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("a")])
    ingest()
    table = lake.table("interactions")
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        overwrite.delete_data_file(next(iter(table.scan().plan_files())).file)
    found = trace(log, lake, "a")
    assert found.state == "unaccounted" and [one.state for one in found.log] == ["unaccounted"]


IDS = ["' OR 1=1 --", 'a"b\\c', "$(touch x)", "%s", "日本語 👩‍🚀", "a/b\tc\n", "0:0", "--rows", "{}", "?"]


def test_ids_are_data_whatever_they_hold(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    log.append([view("plain"), *(view(one) for one in IDS)])
    waiting = [trace(log, lake, one) for one in IDS]
    ingest()
    for event_id, before in zip(IDS, waiting, strict=True):
        found = trace(log, lake, event_id)
        assert (before.state, len(before.log)) == (
            "waiting",
            2 if event_id == "0:0" and before.log[0].log_partition == 0 else 1,
        )
        assert found.state == "stored"
        if event_id != "0:0":
            assert len(found.stored) == 1


@pytest.mark.parametrize("event_id", ["", "a\x00b", "\udcff"])
def test_what_can_be_no_id_is_refused(log: EventLog, lake: Lake, event_id: str) -> None:
    with pytest.raises(UserError, match="no event has such an id"):
        trace(log, lake, event_id)


def test_an_unknown_event_is_nowhere(log: EventLog, lake: Lake, ingest: Ingest) -> None:
    assert trace(log, lake, "a").state == "nowhere"
    log.append([view("b", properties={"event_id": "a", "about": "a"})])
    assert trace(log, lake, "a").state == "nowhere"
    ingest()
    assert trace(log, lake, "a").state == "nowhere"
    assert trace(log, lake, "99:0").state == "nowhere"


def test_it_is_found_wherever_it_lies_in_a_log_of_many_slices(
    log: EventLog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "SLICE_BYTES", 700)
    ids = [f"e{number}" for number in range(40)]
    log.append([view(one) for one in ids])
    for one in (ids[0], ids[17], ids[-1]):
        assert [id_of(line.raw) for line in lines_of(log, one)] == [one]


def spelled(text: str, escaped: set[int]) -> str:
    """JSON of a text in which these characters are written with \\u."""
    units = [
        "".join(f"\\u{ord(half):04x}" for half in _halves(c))
        if n in escaped
        else json.dumps(c, ensure_ascii=False)[1:-1]
        for n, c in enumerate(text)
    ]
    return '"' + "".join(units) + '"'


def _halves(character: str) -> list[str]:
    words = character.encode("utf-16-be")
    return [chr(int.from_bytes(words[n : n + 2], "big")) for n in range(0, len(words), 2)]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_an_id_is_found_however_it_is_spelled(text: str, escaped: set[int]) -> None:
    line = f'{{"event_id": {spelled(text, escaped)}}}'.encode()
    assert id_of(line) == text
    found = list(lines_of(OneLine([b'{"event_id":"x-other"}', line]), text))  # type: ignore[arg-type]
    assert [one.raw for one in found] == [line]


class OneLine:
    """A log in memory, of one partition, read in one slice."""

    def __init__(self, lines: list[bytes]) -> None:
        self.data = b"".join(line + b"\n" for line in lines)

    def begin_offsets(self) -> dict[int, int]:
        return {0: 0}

    def partitions(self) -> list[int]:
        return [0]

    def read(self, partition: int, start: int, max_bytes: int) -> "log_search.LogSlice":
        import numpy as np

        from recsys_data.ingestion.streaming.log.embedded.reader import line_bounds

        data = self.data[start:]
        bounds = line_bounds(data) if data else np.zeros(1, np.int64)
        return log_search.LogSlice(0, start, start + len(data), data, bounds, start + bounds[:-1])


def test_a_consumer_at_work_hides_nothing(
    log: EventLog, lake: Lake, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event moves from the log to the tables while it is looked for."""
    log.append([view("a")])
    looked = log_search.slices

    def then_ingest(log: EventLog):
        yield from looked(log)
        ingest()

    monkeypatch.setattr(log_search, "slices", then_ingest)
    found = trace(log, lake, "a")
    assert (found.state, len(found.stored), found.log) == ("stored", 1, [])
    assert lag_of(log, lake).events == 0
