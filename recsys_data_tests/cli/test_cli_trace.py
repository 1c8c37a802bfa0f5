import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

GOOD = b'{"event_id":"good","type":"view","user_id":"secret-user","item_id":"i1","event_ts":"2026-01-02T03:04:05.5Z"}'
BAD = b'{"event_id":"bad","type":"view","user_id":"secret\\u001b[31m","event_ts":"2026-01-03T00:00:00Z","x":"\x1b[31m"}'


@pytest.fixture
def fed(run: Run, tmp_path: Path) -> Run:
    """Commands on a lake with one interaction and one dead letter."""
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"\n".join([GOOD, BAD]))
    run("load", "events", str(events))
    run("ingest", "--until-empty")
    return run


def test_a_row_is_shown_without_personal_columns(fed: Run) -> None:
    text = fed("trace", "good").stdout
    for word in ("It is stored", "row of interactions", "2026-01-02", ".parquet", "snapshot", "after receipt"):
        assert word in text
    assert "secret" not in text
    assert "secret-user" in fed("trace", "good", "--rows").stdout


def test_a_dead_letter_is_shown_with_its_reason_and_no_power_over_the_terminal(fed: Run) -> None:
    text = fed("trace", "bad").stdout
    assert "dead letter" in text and "secret" not in text
    text = fed("trace", "bad", "--rows").stdout
    assert "\x1b" not in text and "\\x1b[31m" in text


def test_json_says_the_same(fed: Run) -> None:
    found = json.loads(fed("trace", "bad", "--json").stdout)
    assert (found["asked"], found["state"], found["stored"]) == ("bad", "rejected", [])
    place = f"{found['dead_letters'][0]['log_partition']}:{found['dead_letters'][0]['log_offset']}"
    assert json.loads(fed("trace", place, "--json", "--rows").stdout)["dead_letters"][0]["raw"].startswith("{")
    row = json.loads(fed("trace", "good", "--json", "--rows").stdout)["stored"][0]["row"]
    assert (row["event_id"], row["event_ts"]) == ("good", "2026-01-02T03:04:05.500000Z")


def test_an_event_that_is_nowhere_ends_with_1(fed: Run) -> None:
    assert "never arrived" in fed("trace", "'; DROP TABLE x; --", code=1).stdout
    assert json.loads(fed("trace", "-x", "--json", code=1).stdout)["state"] == "nowhere"


def test_a_waiting_event_says_behind_how_much(run: Run, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_bytes(GOOD)
    run("load", "events", str(events))
    text = run("trace", "good").stdout
    assert "It waits in the event log" in text and "waits behind 0 bytes" in text
