"""The verdict on a sound lake is that it is sound, also where tables are apart, were added, or a flush was repeated."""

import errno
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys_data.ingestion.batch.retention import expire
from recsys_data.ingestion.streaming import stream_writer as writer_module
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.validator import Validator
from recsys_data.ingestion.streaming.stream_writer import StreamWriter
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.monitoring.verification import verify
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.ingestion.streaming.test_decided_once import LINES, ORDER, assert_verified, killed_before
from recsys_data_tests.support.contract_files import builtin, custom, load, of_stream
from recsys_data_tests.support.decoding import NOW, decoder_of, validated
from recsys_data_tests.support.platform import Platform, identify, view

PEOPLE = of_stream(
    "people", {"name": "code", "logicalType": "string", "customProperties": custom(source="voucher.code")}
)


def problems(platform: Platform) -> list[str]:
    found = verify(platform.lake, platform.log, platform.settings, deep=True)
    return [f"{one.check}: {one.found}" for one in found if one.state == "problem"]


@pytest.mark.parametrize("table", ORDER)
def test_a_crash_between_two_commits_is_no_loss(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    platform.append([view("first")])
    platform.consume()
    platform.append([*LINES, identify("with context", context={"page": "/"})])
    killed_before(table, platform, monkeypatch)
    assert problems(platform) == []
    assert reconcile_lake(platform.lake, platform.settings).balanced
    platform.consume()
    assert_verified(platform)


def test_a_second_table_of_dead_letters_has_those_since_it_was_added(
    make_platform: MakePlatform, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path / "state")
    platform.append([view("a"), b"before"])
    platform.consume()
    platform.close()
    second: dict[str, Any] = builtin("dead_letters") | {"name": "rejected", "id": "rejected"}
    second["schema"][0]["name"] = "rejected"
    platform = make_platform(tmp_path / "state", load(tmp_path / "more", second))
    platform.append([b"since"])
    platform.consume()
    assert [row["raw"] for row in platform.rows("rejected")] == [b"since"]
    assert_verified(platform)


def test_an_index_that_was_saved_while_a_dataset_was_behind_is_sound(
    make_platform: MakePlatform, tmp_path: Path
) -> None:
    platform = make_platform(tmp_path / "state", partitions=1)
    for number in range(20):
        platform.append([view(f"v{number}"), identify(f"i{number}")])
    platform.consume()
    platform.close()
    platform = make_platform(tmp_path / "state", load(tmp_path / "more", PEOPLE), partitions=1)
    writer = StreamWriter(platform.open_lake(), platform.settings, platform.log.begin_offsets())
    writer.add(validated(decoder_of(platform.contracts), platform.log.read(0, 0, 1000)))
    writer.flush()
    writer.close()
    assert platform.ledger("people").positions[0] < platform.ledger().positions[0]
    assert problems(platform) == []
    platform.consume()
    assert_verified(platform)


def test_deliveries_of_an_event_that_has_expired_are_no_loss(make_platform: MakePlatform, tmp_path: Path) -> None:
    kept = builtin("interactions")
    kept["slaProperties"].append({"property": "retention", "value": 30, "unit": "d"})
    platform = make_platform(tmp_path / "state", load(tmp_path / "kept", kept))
    platform.append([view("old"), view("old"), view("old"), view("new", day=25)])
    platform.consume()
    assert expire(platform.lake, "interactions", datetime(2026, 2, 15, tzinfo=UTC)).rows == 1
    assert_verified(platform)


def test_a_flush_that_failed_is_tried_again_with_what_was_added_meanwhile(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(partitions=1)
    writer = StreamWriter(platform.open_lake(), platform.settings)
    decoder = decoder_of(platform.contracts)
    platform.append(LINES)
    first = platform.log.read(0, 0, 1 << 20)
    writer.add(validated(decoder, first))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(writer_module, "write_intent", full)
        writer.flush()
    platform.append([view("good"), view("new"), b"bad"])
    writer.add(validated(decoder, platform.log.read(0, first.end, 1 << 20)))
    writer.flush()
    writer.close()
    platform.assert_whole()
    assert_verified(platform)


def test_a_validation_that_failed_is_tried_again_with_what_was_read_meanwhile(
    make_platform: MakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(partitions=1)
    decoder = decoder_of(platform.contracts)
    validator = Validator(decoder.session)
    platform.append(LINES)
    first = decoder.decode(platform.log.read(0, 0, 1 << 20), NOW)
    validate, calls = validator._validate, []

    def halved(batch: Any, numbers: Sequence[int]) -> None:
        """Fails of some line among all, then for want of memory."""
        calls.append(numbers)
        if len(calls) == 1:
            raise ValueError
        if len(calls) == 3:
            raise MemoryError
        validate(batch, numbers)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(validator, "_validate", halved)
        validator.validate([first])
    platform.append([view("good"), view("new"), b"bad"])
    second = decoder.decode(platform.log.read(0, first.end, 1 << 20), NOW)
    writer = StreamWriter(platform.open_lake(), platform.settings)
    for decoded in validator.validate([first, second]):
        writer.add(decoded)
    writer.flush()
    writer.close()
    platform.assert_whole()
    assert_verified(platform)


def test_lines_that_are_not_validated_yet_are_not_written(make_platform: MakePlatform, decoder: Decoder) -> None:
    platform = make_platform(partitions=1)
    platform.append(LINES)
    decoded = decoder.decode(platform.log.read(0, 0, 1 << 20), NOW)
    writer = StreamWriter(platform.open_lake(), platform.settings)
    with pytest.raises(ValueError, match="lines are deferred; expected none"):
        writer.add(decoded)
    with pytest.raises(FrozenInstanceError):
        decoded.deferred = ()  # type: ignore[misc]
