"""A line is decided once: what changes between a crash and the next consumer changes no outcome."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recsys_data.contracts import Contract
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming import decided
from recsys_data.ingestion.streaming import stream_writer as writer_module
from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter
from recsys_data.ingestion.streaming.replay import replay
from recsys_data.ingestion.streaming.stream_writer import StreamWriter
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.monitoring.verification import verify
from recsys_data.operations.backup.backup import back_up
from recsys_data.operations.backup.restore import restore
from recsys_data.storage.commit import accept_losses, commit
from recsys_data.storage.intent import FOLDER, read_intent
from recsys_data.storage.ledger import LEDGER, read_ledger
from recsys_data.storage.maintenance.compaction import maintain_table
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.contract_files import builtin, custom, load, of_stream, rule, rules_of
from recsys_data_tests.support.decoding import decoder_of
from recsys_data_tests.support.platform import Platform, identify, intent_file, view

ORDER = ("dead_letters", "contexts", "identities", "interactions")
LINES = [
    view("good", context={"page": "/"}),
    view("qa", query="qa", context={"page": "/"}),
    view("long", blob="x" * 3000, context={"page": "/"}),
    identify("who"),
    view("good"),
    b"not JSON",
]


class Killed(BaseException):
    """The end of a process, which nothing in it can catch."""


def strict(folder: Path) -> dict[str, Contract]:
    """Contracts that reject what the built-in ones accept: `qa`."""
    document = builtin("interactions")
    rules_of(document).append(rule("no_qa", "coalesce(query, '') <> 'qa'"))
    return load(folder, document)


def killed_before(table: str, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consume until just before the commit of a table."""

    def dying(stored: Any, *arguments: Any) -> None:
        if stored.name()[-1] == table:
            raise Killed
        commit(stored, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(writer_module, "commit", dying)
        platform.consume()


def assert_verified(platform: Platform) -> None:
    faults = [one for one in verify(platform.lake, platform.log, platform.settings, deep=True) if one.state != "ok"]
    assert not faults
    assert reconcile_lake(platform.lake, platform.settings).balanced


def test_a_commit_that_another_consumer_begins_while_tables_are_opened_is_completed(
    make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_platform(tmp_path / "state", load(tmp_path / "none"), partitions=1)
    first.append([view("before"), b"not JSON"])
    first.consume()
    first.append(LINES)
    second = make_platform(tmp_path / "state", strict(tmp_path / "strict"), partitions=1)
    begun: list[str] = []

    def read(io: Any, warehouse: Any, name: str) -> Any:
        if not begun:
            begun.append(name)
            killed_before("contexts", first, monkeypatch)
        return read_intent(io, warehouse, name)

    with monkeypatch.context() as patch:
        patch.setattr(decided, "read_intent", read)
        second.consume()
    assert begun
    # As the consumer decided that began the commit, not as the second one would.
    assert "qa" in {row["event_id"] for row in second.rows("interactions")}
    assert_verified(second)


def test_a_new_partition_that_only_one_table_has_keeps_its_position(
    make_platform: MakePlatform, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path / "state", load(tmp_path / "none"), partitions=1)
    platform.append(LINES)
    platform.consume()
    table = platform.lake.table("dead_letters")
    ledger = read_ledger(table)
    commit(table, ledger, msgspec.structs.replace(ledger, positions={**ledger.positions, 7: 100}), [])
    platform.append([view("later")])
    platform.consume()
    assert read_ledger(platform.lake.table("dead_letters")).positions[7] == 100


@pytest.mark.parametrize("table", ORDER)
@pytest.mark.parametrize("change", ["stricter", "more lenient", "setting"])
def test_what_changes_between_two_commits_changes_no_outcome(
    make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, change: str
) -> None:
    contracts = {"before": load(tmp_path / "none"), "after": load(tmp_path / "none")}
    if change != "setting":
        contracts["after" if change == "stricter" else "before"] = strict(tmp_path / "strict")
    first = make_platform(tmp_path / "state", contracts["before"], partitions=1)
    first.append(LINES)
    killed_before(table, first, monkeypatch)
    first.close()
    limit = {"max_event_bytes": 1000} if change == "setting" else {}
    second = make_platform(tmp_path / "state", contracts["after"], partitions=1, **limit)
    second.append([view("later")])
    second.consume()
    nothing_visible = table == "dead_letters"
    # Nothing was decided before the first commit: what holds then is what holds now.
    rejected = {
        "stricter": {"qa"} if nothing_visible else set(),
        "more lenient": set() if nothing_visible else {"qa"},
        "setting": {"long"} if nothing_visible else set(),
    }[change]
    accepted = {"good", "qa", "long", "later"} - rejected
    assert set(second.ids()) == accepted
    assert set(second.ids("contexts")) == accepted - {"later"}
    assert second.ids("identities") == ["who"]
    assert len(second.rows("dead_letters")) == 1 + len(rejected)
    second.assert_whole()
    assert_verified(second)


def test_a_writer_that_goes_on_after_its_successor_finds_its_decision_made(
    make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor has other contracts, and decides about other lines only."""
    platform = make_platform(tmp_path / "state")
    decoder = decoder_of(platform.contracts)
    stopped = StreamWriter(platform.open_lake(), platform.settings)
    platform.append(LINES)
    platform.feed(stopped, decoder)

    def overtaken(stored: Any, *arguments: Any) -> Any:
        if stored.name()[-1] == "contexts":
            monkeypatch.setattr(writer_module, "commit", commit)
            successor = make_platform(tmp_path / "state", strict(tmp_path / "strict"))
            successor.append([view("qa2", query="qa")], writer=1)
            successor.consume()
            successor.close()
        return commit(stored, *arguments)

    monkeypatch.setattr(writer_module, "commit", overtaken)
    platform.close()
    with pytest.raises(Transient, match="Another process has moved"):
        stopped.flush()
    assert platform.ids() == ["good", "long", "qa"]
    platform.assert_whole()
    assert_verified(platform)


def test_an_intent_says_what_became_of_each_line_and_by_what(make_platform: MakePlatform) -> None:
    platform = make_platform(partitions=1)
    platform.append(LINES)
    platform.consume()
    ledger = platform.ledger()
    intent = read_intent(platform.lake.table("interactions").io, platform.lake.warehouse, ledger.intent)
    assert intent is not None
    (lines,) = intent.lines
    assert (lines.partition, lines.start, lines.end) == (0, 0, ledger.positions[0])
    assert lines.outcomes().tolist() == [0, 0, 0, 0, 1, 2]
    assert intent.decided_by["RECSYS_DATA_MAX_EVENT_BYTES"] == str(platform.settings.max_event_bytes)
    assert {"contracts", "duckdb", "recsys-data"} < intent.decided_by.keys()
    assert list(intent.tables) == list(ORDER)


def test_intents_are_removed_once_they_are_committed(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for event_id in "abc":
        platform.append([view(event_id)])
        platform.consume()
    kept = intent_file(platform.lake, platform.ledger().intent)
    assert list(kept.parent.iterdir()) == [kept]
    platform.append([view("d")])
    killed_before("dead_letters", platform, monkeypatch)
    assert len(list(kept.parent.iterdir())) == 2
    platform.consume()
    assert len(list(kept.parent.iterdir())) == 1
    platform.assert_whole()


def test_an_intent_that_can_still_be_named_stays_whatever_the_clock_says(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days pass between intent and commit, or the clock was wrong, while another consumer comes and goes."""
    platform.append(LINES)

    def late(stored: Any, *arguments: Any) -> None:
        if stored.name()[-1] != "dead_letters":
            raise Killed
        for path in intent_file(platform.lake, "any").parent.iterdir():
            then = path.stat().st_mtime - 2 * 86_400
            os.utime(path, (then, then))
        StreamWriter(platform.open_lake(), platform.settings).close()
        commit(stored, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(writer_module, "commit", late)
        platform.consume()
    platform.consume()
    platform.assert_whole()
    assert_verified(platform)


def test_a_damaged_intent_stops_ingestion_only_where_it_is_needed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.append([view("a")])
    platform.consume()
    intent_file(platform.lake, platform.ledger().intent).write_bytes(b"{")
    platform.append(LINES)
    killed_before("identities", platform, monkeypatch)
    pending = intent_file(platform.lake, platform.ledger("dead_letters").intent)
    whole = pending.read_bytes()
    pending.write_bytes(whole[:-1])
    with pytest.raises(Permanent, match="is damaged"):
        platform.consume()
    pending.write_bytes(whole)
    platform.consume()
    platform.assert_whole()
    assert_verified(platform)


def test_a_first_segment_that_was_never_read_is_lost_too(make_platform: MakePlatform) -> None:
    platform = make_platform(partitions=1, segment_bytes=200)
    for event_id in "ab":
        platform.append([view(event_id)])
    first = min((platform.settings.log_dir / "0").glob("*.ndjson"))
    size = first.stat().st_size
    first.unlink()
    platform.consume()
    assert platform.ids() == ["b"]
    assert [(one.partition, one.start, one.end) for one in platform.ledger().lost] == [(0, 0, size)]
    assert not reconcile_lake(platform.lake, platform.settings).balanced


VOUCHERS = of_stream(
    "vouchers",
    {"name": "code", "logicalType": "string", "customProperties": custom(source="voucher.code")},
    rowFrom="voucher",
)


def test_a_dead_letter_stays_one_when_the_log_is_read_again_for_a_new_dataset(
    make_platform: MakePlatform, tmp_path: Path
) -> None:
    voucher: dict[str, Any] = {"voucher": {"code": "v"}}
    platform = make_platform(tmp_path / "state", strict(tmp_path / "strict"))
    platform.append([view("good", **voucher), view("qa", query="qa", **voucher), view("good", **voucher)])
    platform.consume()
    platform.close()
    platform = make_platform(tmp_path / "state", load(tmp_path / "more", VOUCHERS))
    platform.consume()
    assert (platform.ids(), platform.ids("vouchers"), len(platform.rows("dead_letters"))) == (["good"], ["good"], 1)
    assert_verified(platform)
    replay(platform.lake, platform.log, platform.settings, DeadLetterFilter())
    platform.consume()
    assert (platform.ids(), platform.ids("vouchers")) == (["good", "qa"], ["good", "qa"])
    assert platform.rows("dead_letters") == []
    platform.assert_whole()
    assert_verified(platform)


@pytest.mark.parametrize("index", ["stays", "goes"])
def test_an_index_of_another_life_of_the_lake_is_not_trusted(
    make_platform: MakePlatform, tmp_path: Path, index: str
) -> None:
    """The lake is restored from a copy, the log and the index stay as they are."""
    platform = make_platform(tmp_path / "state", partitions=1)
    platform.append([view("a"), view("b")])
    platform.consume()
    saved = tmp_path / "copy"
    shutil.copytree(platform.lake.folder, saved)
    platform.append([view("c"), view("d")])
    platform.consume()
    platform.close()
    shutil.rmtree(platform.lake.folder)
    shutil.copytree(saved, platform.lake.folder)
    if index == "goes":
        shutil.rmtree(platform.settings.data_dir / "ingest" / "seen")
    restored = make_platform(tmp_path / "state", partitions=1)
    # Another history: d is delivered before c, and each line once more.
    (segment,) = (restored.settings.log_dir / "0").glob("*.ndjson")
    lines = segment.read_bytes().splitlines()
    segment.write_bytes(b"\n".join([*lines[:2], view("d"), view("e"), view("c"), view("a"), view("d")]) + b"\n")
    restored.consume()
    assert restored.ids() == ["a", "b", "c", "d", "e"]
    restored.assert_whole()
    assert_verified(restored)


def test_a_missing_segment_is_counted_as_lost_and_alarms_until_it_is_accepted(
    make_platform: MakePlatform, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path / "state", partitions=1, segment_bytes=200)
    for event_id in "abcd":
        platform.append([view(event_id)])
    second = sorted((platform.settings.log_dir / "0").glob("*.ndjson"))[1]
    start, size = int(second.stem), second.stat().st_size
    second.unlink()
    platform.consume()
    assert platform.ids() == ["a", "c", "d"]
    assert [(one.partition, one.start, one.end) for one in platform.ledger().lost] == [(0, start, start + size)]
    verdict = reconcile_lake(platform.lake, platform.settings)
    assert [fault.dataset for fault in verdict.faults] == ["interactions"]
    assert f"log partition 0 lost positions {start:,} to {start + size:,}" in verdict.faults[0].found
    assert accept_losses(platform.lake.table("interactions")) == 1
    assert accept_losses(platform.lake.table("interactions")) == 0
    assert_verified(platform)


def test_a_lost_segment_that_no_line_follows_is_counted(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform(tmp_path / "state", partitions=1, segment_bytes=200)
    platform.append([view("a")])
    platform.append([view("b")])
    segments = sorted((platform.settings.log_dir / "0").glob("*.ndjson"))
    segments[0].unlink()
    segments[1].write_bytes(b"")
    platform.consume()
    assert [(one.start, one.end) for one in platform.ledger().lost] == [(0, int(segments[1].stem))]
    assert not reconcile_lake(platform.lake, platform.settings).balanced
    platform.append([view("c")])
    platform.consume()
    assert platform.ids() == ["c"]
    # What the emptied segment held is lost too, and known once the next one begins.
    first, second = platform.ledger().lost
    assert (first.start, first.end, second.start) == (0, second.start, int(segments[1].stem))


def test_completing_says_what_changed_since(
    make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    platform = make_platform(tmp_path / "state", partitions=1)
    platform.append(LINES)
    killed_before("identities", platform, monkeypatch)
    platform.close()
    make_platform(tmp_path / "state", partitions=1, max_event_bytes=1000).consume()
    assert "Completing the commit of identities" in caplog.text
    assert "changed since, and not applied to it: RECSYS_DATA_MAX_EVENT_BYTES" in caplog.text
    assert json.loads(LINES[0])["event_id"] in platform.ids()


def test_files_of_a_pending_intent_are_no_orphans_and_part_of_a_backup(
    make_platform: MakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(tmp_path / "state", partitions=1)
    platform.append(LINES)
    killed_before("contexts", platform, monkeypatch)
    later = datetime.now(UTC)
    for _ in range(2):
        later += timedelta(days=3)
        maintain_table(platform.lake, "contexts", later)
    back_up(platform.settings, tmp_path / "backup")
    platform.close()
    shutil.move(tmp_path / "state", tmp_path / "lost")
    restore(platform.settings, tmp_path / "backup")
    restored = make_platform(tmp_path / "state", strict(tmp_path / "strict"), partitions=1)
    restored.consume()
    assert restored.ids("contexts") == restored.ids() == ["good", "long", "qa"]
    restored.assert_whole()
    assert_verified(restored)


def test_a_flush_that_an_earlier_version_left_half_done_is_completed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knew no intents, and committed the main table last."""
    platform.append([view("before", context={"page": "/"}), identify("x")])
    platform.consume()
    platform.append(LINES)
    killed_before("interactions", platform, monkeypatch)
    shutil.rmtree(platform.lake.folder / FOLDER)
    for name in ORDER:
        table = platform.lake.table(name)
        old = msgspec.structs.replace(read_ledger(table), intent="", partitions={}, index_commits=())
        with table.transaction() as transaction:
            transaction.set_properties({LEDGER: msgspec.json.encode(old).decode()})
    platform.append([view("after")], writer=1)
    platform.consume()
    assert platform.ids() == ["after", "before", "good", "long", "qa"]
    assert platform.ids("contexts") == ["before", "good", "long", "qa"]
    platform.assert_whole()
    assert_verified(platform)
