"""Dead letters are replayed once, and none is lost, wherever a replay dies and whatever happens beside it."""

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from recsys_data.contracts import Contract
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming import dead_letters, replay
from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.leases import file_lock
from recsys_data.monitoring.trace.trace import trace
from recsys_data.operations.backup.backup import back_up
from recsys_data.operations.backup.restore import restore
from recsys_data.storage.iceberg import file_io
from recsys_data.storage.maintenance.compaction import compact_day
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.contract_files import builtin, load, rules_of
from recsys_data_tests.support.crashes import Crash
from recsys_data_tests.support.decoding import FIRST_DAY
from recsys_data_tests.support.platform import Platform, view

LONG = [f"{n}{'x' * 300}" for n in range(4)]
# Each leaves something else behind; a step's end is the next one's beginning.
CRASHES = [
    ("before", file_io, "sync_all", 1),
    ("before", dead_letters, "rewrite", 1),
    ("before", SqlCatalog, "commit_table", 1),
    ("after", SqlCatalog, "commit_table", 1),
    ("after", EmbeddedLog, "append", 1),
    ("after", SqlCatalog, "commit_table", 2),
    ("before", EmbeddedLog, "append", 2),
]


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Contract]:
    """Contracts under which ids may be long."""
    documents = [builtin("interactions"), builtin("identities")]
    for document in documents:
        rules_of(document)[:] = [rule for rule in rules_of(document) if rule["name"] != "event_id_too_long"]
    return load(tmp_path_factory.mktemp("contracts"), *documents)


@pytest.fixture(scope="module")
def lenient_session(lenient: Mapping[str, Contract]) -> EventSession:
    return EventSession(EventSchema(lenient), FIRST_DAY)


@pytest.fixture
def changed(
    platform: Platform,
    make_platform: MakePlatform,
    lenient: Mapping[str, Contract],
    lenient_session: EventSession,
    monkeypatch: pytest.MonkeyPatch,
) -> Platform:
    """A platform that rejected lines in two commits, after its contracts were changed: long ids are good now."""
    platform.append([view("good"), view(LONG[0]), b"no JSON", view(LONG[1])])
    platform.consume()
    platform.append([view(LONG[2]), view(LONG[0]), view("nobody", user_id=None)], writer=1)
    platform.consume()
    platform.close()
    monkeypatch.setattr(replay, "EventSession", lambda *_: lenient_session)
    place = {"warehouse": platform.settings.warehouse, "catalog": platform.settings.catalog}
    return make_platform(Path(platform.settings.dir), lenient, **place)


def replayed(platform: Platform, **meant: Any) -> tuple[int, dict[str, int]]:
    """How many were replayed, and why the others stay."""
    reported: list[int] = []
    stay = replay.replay(
        platform.open_lake(), platform.log, platform.settings, DeadLetterFilter(**meant), reported.append
    )
    return sum(reported), dict(stay)


def reasons(platform: Platform) -> list[str]:
    return sorted(row["reason"] for row in platform.rows("dead_letters"))


def assert_replayed(platform: Platform) -> None:
    """What can be accepted is stored once, the rest is still a dead letter, and nothing is on its way."""
    platform.assert_whole()
    assert platform.ids() == sorted(["good", *LONG[:3]])
    assert reasons(platform) == ["malformed_json", "missing_actor"]
    counts = platform.removed("dead_letters")
    assert (counts.replayed, counts.discarded, counts.outbox) == (4, 0, ())
    assert not list(platform.lake.io.files_below(f"{platform.lake.warehouse}/replay"))


def test_lines_that_the_contracts_take_now_are_replayed_once(changed: Platform) -> None:
    assert reasons(changed) == ["event_id_too_long"] * 4 + ["malformed_json", "missing_actor"]
    assert replayed(changed) == (4, {"malformed_json": 1, "missing_actor": 1})
    assert lag_of(changed.log, changed.lake).events == 4
    changed.consume()
    assert_replayed(changed)
    assert replayed(changed) == (0, {"malformed_json": 1, "missing_actor": 1})
    assert changed.consume() == []
    assert_replayed(changed)


def test_a_replayed_event_keeps_when_it_was_received(changed: Platform) -> None:
    replayed(changed)
    changed.consume()
    assert {row["received_at"] for row in changed.rows()} == {datetime(2026, 1, 31, tzinfo=UTC)}


def test_only_what_is_meant_is_replayed(changed: Platform) -> None:
    first = min(row["rejected_at"] for row in changed.rows("dead_letters"))
    assert replayed(changed, reason="missing_actor") == (0, {"missing_actor": 1})
    assert replayed(changed, dataset="nothing'; --") == (0, {})
    assert replayed(changed, until=first) == (0, {})
    assert replayed(changed, since=first + timedelta(microseconds=1))[0] == 2
    assert replayed(changed, reason="event_id_too_long")[0] == 2


def test_an_event_that_was_sent_again_meanwhile_is_not_doubled(changed: Platform) -> None:
    changed.append([view(LONG[0], item_id="second delivery")])
    changed.consume()
    replayed(changed)
    changed.consume()
    assert_replayed(changed)
    assert {row["item_id"] for row in changed.rows() if row["event_id"] == LONG[0]} == {"second delivery"}


def test_discarded_lines_are_gone_and_stay_counted(changed: Platform) -> None:
    reported: list[int] = []
    replay.discard(changed.lake, changed.settings, DeadLetterFilter(reason="event_id_too_long"), reported.append)
    assert sum(reported) == 4
    assert reasons(changed) == ["malformed_json", "missing_actor"]
    assert changed.removed("dead_letters").discarded == 4
    changed.assert_whole()
    assert replayed(changed)[0] == 0


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets the process die before or after a step is done for the n-th time; afterwards it is as before."""
    with monkeypatch.context() as patch:

        def arm(owner: Any, name: str, when: str, nth: int) -> None:
            work, passes = getattr(owner, name), [0]

            def crashing(*args: Any, **kwargs: Any) -> Any:
                passes[0] += 1
                if passes[0] == nth and when == "before":
                    raise Crash(name)
                result = work(*args, **kwargs)
                if passes[0] == nth:
                    raise Crash(name)
                return result

            patch.setattr(owner, name, crashing)

        arm.undo = patch.undo  # pyright: ignore[reportFunctionMemberAccess]
        yield arm


@pytest.mark.parametrize(("when", "owner", "name", "nth"), CRASHES)
def test_a_crash_at_any_step_neither_loses_nor_doubles(
    changed: Platform, crash_at: Any, when: str, owner: Any, name: str, nth: int
) -> None:
    crash_at(owner, name, when, nth)
    with pytest.raises(Crash):
        replayed(changed)
    crash_at.undo()
    changed.consume()
    changed.assert_whole()
    assert lag_of(changed.log, changed.open_lake()).events == 0
    stored = [event_id for event_id in changed.ids() if event_id in LONG]
    rejected = [row["event_id"] for row in changed.rows("dead_letters") if row["reason"] == "event_id_too_long"]
    assert set(stored) | set(rejected) == set(LONG[:3])
    replayed(changed)
    changed.consume()
    assert_replayed(changed)


def test_a_consumer_and_compaction_beside_a_replay_lose_nothing(
    changed: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_rows = dead_letters.delete_files
    busy = [True]

    def disturbed(*args: Any, **kwargs: Any) -> bool:
        if busy[0]:
            busy[0] = False
            changed.append([view("late"), b"no JSON either"])
            changed.consume()
            table = changed.open_lake().table("dead_letters")
            compact_day(table, next(iter(table.scan().plan_files())).file.partition[0])
        return take_rows(*args, **kwargs)

    monkeypatch.setattr(dead_letters, "delete_files", disturbed)
    replayed(changed)
    changed.consume()
    changed.assert_whole()
    assert changed.ids() == sorted(["good", "late", *LONG[:3]])
    assert reasons(changed) == ["malformed_json", "malformed_json", "missing_actor"]
    assert changed.removed("dead_letters").replayed == 4


def test_one_replay_at_a_time(changed: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "WAIT_SECONDS", 0.0)
    with (
        file_lock(changed.settings.data_dir / "ingest" / "replay.lock", 0),
        pytest.raises(Transient, match="Another process is replaying"),
    ):
        replayed(changed)
    assert replayed(changed)[0] == 4


def test_a_log_that_cannot_be_written_delays_a_replay(changed: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise Transient("the log cannot be written now")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedLog, "append", full)
        with pytest.raises(Transient, match="cannot be written"):
            replayed(changed)
        assert lag_of(changed.log, changed.lake).events > 0
    changed.consume()
    replayed(changed)
    changed.consume()
    assert_replayed(changed)


def test_an_outbox_that_is_gone_is_named(changed: Platform, crash_at: Any) -> None:
    crash_at(EmbeddedLog, "append", "before", 1)
    with pytest.raises(Crash):
        replayed(changed)
    crash_at.undo()
    (path,) = (changed.lake.folder / "replay").iterdir()
    path.unlink()
    with pytest.raises(Permanent, match=path.name):
        changed.consume()


def test_an_outbox_that_is_gone_is_complete_if_its_lines_are_in_the_log(changed: Platform, crash_at: Any) -> None:
    """As after a power failure that took back the last commit of the catalog and kept the removal of the file."""
    crash_at(replay, "delete_files", "before", 1)
    with pytest.raises(Crash):
        replayed(changed)
    crash_at.undo()
    assert changed.removed("dead_letters").waiting
    (path,) = (changed.lake.folder / "replay").iterdir()
    path.unlink()
    changed.consume()
    assert not changed.removed("dead_letters").waiting
    replayed(changed)
    changed.consume()
    assert_replayed(changed)


def test_a_line_on_its_way_is_found_and_a_discarded_one_is_explained(changed: Platform, crash_at: Any) -> None:
    crash_at(EmbeddedLog, "append", "before", 1)
    with pytest.raises(Crash):
        replayed(changed)
    crash_at.undo()
    rejected = {row["event_id"] for row in changed.rows("dead_letters")}
    states = {event_id: trace(changed.log, changed.open_lake(), event_id).state for event_id in LONG[1:3]}
    assert states == {one: "rejected" if one in rejected else "replaying" for one in LONG[1:3]}
    assert "replaying" in states.values()
    replay.discard(changed.lake, changed.settings, DeadLetterFilter(reason="missing_actor"))
    found = trace(changed.log, changed.open_lake(), "nobody")
    assert found.state == "unaccounted"
    assert "discarded" in found.meaning


def test_a_backup_holds_what_is_on_its_way(
    changed: Platform, make_platform: MakePlatform, crash_at: Any, tmp_path: Path
) -> None:
    crash_at(EmbeddedLog, "append", "before", 1)
    with pytest.raises(Crash):
        replayed(changed)
    crash_at.undo()
    back_up(changed.settings, tmp_path / "backup")
    changed.close()
    folder = Path(changed.settings.dir)
    shutil.move(folder, tmp_path / "lost")
    restore(changed.settings, tmp_path / "backup")
    restored = make_platform(folder, changed.contracts)
    restored.consume()
    replayed(restored)
    restored.consume()
    assert_replayed(restored)
