import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recsys_data.ingestion.streaming.consumer_lease import hold_lease, lease_holder
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings

Run = Callable[..., Result]
EVENT = '{"event_id":"%s","type":"view","user_id":"u","item_id":"i","event_ts":"2026-01-02T03:04:05Z"}'


@pytest.fixture
def append(settings: Settings) -> Callable[..., None]:
    """Append lines to the event log."""

    def append(*lines: str) -> None:
        log = open_log(settings)
        log.append([line.encode() for line in lines])
        log.close()

    return append


def test_what_became_of_every_line_is_reported(run: Run, append: Callable[..., None]) -> None:
    append(EVENT % "1", EVENT % "2", EVENT % "1", "{", "[]", "{}")
    words = run("ingest", "--until-empty").stdout.split()
    for name, count in (("read", 6), ("accepted", 2), ("duplicates", 1), ("malformed_json", 1), ("not_an_object", 1)):
        assert words[words.index(name) + 1] == str(count)


def test_reasons_are_those_of_this_run(run: Run, append: Callable[..., None]) -> None:
    append("{")
    assert "malformed_json" in run("ingest", "--until-empty").stdout
    append("[]")
    second = run("ingest", "--until-empty").stdout
    assert "not_an_object" in second
    assert "malformed_json" not in second


def test_nothing_to_do_is_no_error(run: Run) -> None:
    assert run("ingest", "--until-empty").stdout.splitlines()[2].split() == ["read", "0"]


def test_a_second_one_says_that_another_ingests(run: Run, settings: Settings) -> None:
    with hold_lease(settings, 0):
        assert "Another process is ingesting" in run("ingest", "--until-empty", code=1).stderr


def test_it_waits_for_another_as_long_as_it_is_reported(run: Run, settings: Settings) -> None:
    begun = time.monotonic()
    with hold_lease(settings, 0):
        run("ingest", "--until-empty", "--wait", "0.5", code=1)
    assert time.monotonic() - begun >= 0.5


def rows(run: Run) -> int:
    return json.loads(run("sql", "SELECT count(*) AS n FROM interactions", "--format", "json").stdout)[0]["n"]


def test_it_goes_on_with_what_arrives_until_a_signal(
    run: Run, start: Any, append: Callable[..., None], status: Callable[[], dict[str, Any]]
) -> None:
    append(EVENT % "1")
    process = start("ingest")
    deadline = time.monotonic() + 60
    while not rows(run) and time.monotonic() < deadline:
        time.sleep(0.3)
    append(EVENT % "2")
    while rows(run) < 2 and time.monotonic() < deadline:
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors == ""
    assert output.splitlines()[2].split() == ["read", "2"]
    run("ingest", "--until-empty")
    ledger = status()["ledger"]
    assert (ledger["read"], ledger["accepted"], ledger["balanced"]) == (2, 2, True)


def test_a_signal_at_any_moment_loses_nothing(
    run: Run, start: Any, settings: Settings, status: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    truth = tmp_path / "truth.json"
    run("simulate", "--events", "20000", "--truth", str(truth))
    for seconds in (0.2, 0.8):
        process = start("ingest")
        while lease_holder(settings) is None and process.poll() is None:
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")
    run("ingest", "--until-empty")
    reported, found = json.loads(truth.read_text()), status()
    assert found["ledger"]["balanced"]
    assert (found["ledger"]["accepted"], found["ledger"]["duplicates"]) == (
        reported["accepted"],
        reported["duplicates"],
    )
    assert found["dead_letters_by_reason"] == reported["dead_letters"]
