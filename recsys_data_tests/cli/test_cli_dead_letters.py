"""`recsys-data dead-letters`: reasons with counts and examples, of the stream and of snapshots."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from recsys_data.settings import Settings
from recsys_data_tests.support.contract_files import builtin, rules_of, write

Run = Callable[..., Result]

LINES = [
    '{"event_id": "a", "type": "view", "item_id": "i", "event_ts": "2026-01-02T03:04:05Z"}',
    '{"event_id": "b", "type": "view", "item_id": "i", "event_ts": "2026-01-02T03:04:05Z"}',
    "no \x1b[31m JSON",
]


def refuse(run: Run, settings: Settings) -> None:
    """Two lines without an actor, one that is not JSON, and an item of which nothing is known."""
    path = settings.data_dir.parent / "events.ndjson"
    path.write_text("".join(line + "\n" for line in LINES))
    run("load", "events", str(path))
    run("ingest", "--until-empty")
    folder = settings.data_dir / "landing" / "item_catalog" / "2026-01-01"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"item_id": "i", "title": "T"}\n{"item_id": "empty"}\n')
    run("snapshot", "take", "item_catalog")


def test_reasons_are_listed_with_counts_and_examples(run: Run, settings: Settings) -> None:
    refuse(run, settings)
    found = {one["reason"]: one for one in json.loads(run("dead-letters", "list", "--json").stdout)}
    assert {reason: (one["count"], one["origin"], one["dataset"]) for reason, one in found.items()} == {
        "missing_actor": (2, "dead_letters", "interactions"),
        "malformed_json": (1, "dead_letters", None),
        "nothing_known": (1, "item_catalog_rejected", "item_catalog"),
    }
    assert found["nothing_known"]["place"] == "2026-01-01"
    assert re.fullmatch(r"[0-3]:\d+", found["malformed_json"]["place"])
    lines = run("dead-letters", "list").stdout.splitlines()
    assert lines[2].split()[:3] == ["missing_actor", "interactions", "2"]


def test_what_was_refused_is_shown_without_power_over_the_terminal(run: Run, settings: Settings) -> None:
    refuse(run, settings)
    shown = run("dead-letters", "show", "malformed_json").stdout
    assert "JSON" in shown
    assert "\x1b" not in shown
    one = run("dead-letters", "show", "missing_actor", "--limit", "1").stdout
    assert one.count('"event_id"') == 1
    rows = run("dead-letters", "show", "nothing_known").stdout
    assert '"item_id":"empty"' in rows
    assert "a title, a description or a price" in rows


def test_a_reason_that_does_not_occur_is_explained(run: Run, settings: Settings) -> None:
    assert run("dead-letters", "list").stdout == "Nothing was rejected.\n"
    assert "Nothing was rejected at all" in run("dead-letters", "show", "missing_actor", code=1).stderr
    refuse(run, settings)
    error = run("dead-letters", "show", "nonsense'; --", code=1).stderr
    assert "Known reasons: malformed_json, missing_actor, nothing_known." in error


def test_lines_are_fixed_by_hand_or_discarded(run: Run, settings: Settings, status: Callable[[], dict]) -> None:
    refuse(run, settings)
    stay = run("dead-letters", "replay").stdout
    assert re.search(r"stay +would be missing_actor again +2", stay)
    assert "Next:" not in stay
    raw = run("dead-letters", "show", "missing_actor", "--raw").stdout
    fixed = settings.data_dir.parent / "fixed.ndjson"
    fixed.write_text(raw.replace("{", '{"user_id": "u", '))
    run("load", "events", str(fixed))
    run("ingest", "--until-empty")
    assert "Delete 2 dead letters" in run("dead-letters", "discard", "missing_actor", stdin="n\n", code=1).stdout
    assert status()["ledger"]["discarded"] == 0
    assert "Discarded 2" in run("dead-letters", "discard", "missing_actor", "--yes").stdout
    ledger = status()["ledger"]
    assert (ledger["accepted"], ledger["dead_letters"], ledger["discarded"], ledger["balanced"]) == (2, 3, 2, True)


def test_a_changed_contract_lets_lines_be_replayed(
    run: Run, settings: Settings, status: Callable[[], dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(run, settings)
    document = builtin("interactions")
    rules_of(document)[:] = [rule for rule in rules_of(document) if rule["name"] != "missing_actor"]
    write(tmp_path / "contracts", document)
    monkeypatch.setenv("RECSYS_DATA_CONTRACTS", str(tmp_path / "contracts"))
    found = run("dead-letters", "replay", "missing_actor", "--since", "2026-01-01").stdout
    assert re.search(r"replayed +2\n", found)
    assert status()["log"]["lag_events"] == 2
    run("ingest", "--until-empty")
    ledger = status()["ledger"]
    assert (ledger["accepted"], ledger["replayed"], ledger["balanced"]) == (2, 2, True)
    assert "missing_actor" not in run("dead-letters", "list").stdout


def test_what_cannot_be_replayed_is_explained(run: Run, settings: Settings) -> None:
    refuse(run, settings)
    assert "take the day's snapshot again" in run("dead-letters", "replay", "nothing_known", code=1).stderr
    assert "Known reasons: malformed_json, missing_actor" in run("dead-letters", "replay", "nonsense", code=1).stderr
    assert (
        "Nothing was rejected"
        in run("dead-letters", "discard", "missing_actor", "--until", "2026-01-01", code=1).stderr
    )
