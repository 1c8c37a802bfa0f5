import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result

Run = Callable[..., Result]


def check(truth: dict[str, Any], status: dict[str, Any]) -> None:
    ledger = status["ledger"]
    assert ledger["balanced"]
    assert (ledger["read"], ledger["accepted"], ledger["duplicates"]) == (
        truth["events"],
        truth["accepted"],
        truth["duplicates"],
    )
    assert ledger["dead_letters"] == sum(truth["dead_letters"].values())
    assert status["dead_letters_by_reason"] == truth["dead_letters"]
    assert {name: status["datasets"][name]["rows"] for name in ("interactions", "identities", "contexts")} == {
        name: truth[name] for name in ("interactions", "identities", "contexts")
    }


def test_ingestion_arrives_at_the_truth(run: Run, status: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    run("simulate", "--events", "3000", "--seed", "3", "--truth", str(truth))
    assert status()["log"]["lag_events"] == 3000
    run("ingest", "--until-empty")
    check(json.loads(truth.read_text()), status())


def test_a_simulated_file_loads_to_the_same_truth(
    run: Run, status: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    truth, events = tmp_path / "truth.json", tmp_path / "events.ndjson"
    run("simulate", "--events", "400", "--truth", str(truth), "--to", str(events))
    assert len(events.read_bytes().split(b"\n")) == 401
    run("load", "events", str(events))
    run("ingest", "--until-empty")
    reported = json.loads(truth.read_text())
    # The reader of files leaves out empty lines, which are one of the planted faults.
    empty = events.read_bytes().split(b"\n")[:-1].count(b"")
    reported["events"] -= empty
    reported["dead_letters"]["malformed_json"] = reported["dead_letters"].get("malformed_json", 0) - empty
    reported["dead_letters"] = {reason: count for reason, count in reported["dead_letters"].items() if count}
    check(reported, status())


def test_equal_plans_give_equal_bytes_on_stdout(run: Run) -> None:
    arguments = ("simulate", "--events", "50", "--seed", "9", "--end", "2026-03-01", "--to", "-")
    first, second = run(*arguments), run(*arguments)
    assert first.stdout_bytes == second.stdout_bytes
    assert first.stdout_bytes.count(b"\n") == 50


def test_decisions_hold_the_shortlist_of_every_recommended_list_that_arrives(run: Run, tmp_path: Path) -> None:
    decisions, truth = tmp_path / "decisions.parquet", tmp_path / "truth.json"
    run("simulate", "--events", "3000", "--decisions", str(decisions), "--truth", str(truth))
    run("ingest", "--until-empty")
    names = ["recommendation_id", "item_id", "score", "variant"]
    query = f"select {', '.join(names)} from interactions where type = 'impression' and recommendation_id is not null"
    rows = [tuple(row[name] for name in names) for row in json.loads(run("sql", "--format", "json", query).stdout)]
    known = {tuple(row[name] for name in names) for row in pq.read_table(decisions, columns=names).to_pylist()}
    assert len(rows) > 300
    assert set(rows) <= known
    assert {row[-1] for row in rows} == {"control", "treatment"}
    worth = json.loads(truth.read_text())["ranking"]["clicks_per_impression"]
    assert worth["random"] < worth["logging"] < worth["by_liking"]
    assert sorted(path.name for path in tmp_path.iterdir() if "decisions" in path.name) == ["decisions.parquet"]


def test_no_events_are_a_truth_too(run: Run, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    run("simulate", "--events", "0", "--truth", str(truth))
    assert json.loads(truth.read_text())["events"] == 0


def test_a_planned_run_goes_no_faster_than_its_rate(run: Run, tmp_path: Path) -> None:
    begun = time.monotonic()
    run("simulate", "--events", "60", "--rate", "100", "--to", str(tmp_path / "events"))
    assert time.monotonic() - begun > 0.5
    assert (tmp_path / "events").read_bytes().count(b"\n") == 60


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_endless_traffic_ends_at_a_signal_with_its_truth(start: Any, tmp_path: Path, number: int) -> None:
    truth, events = tmp_path / "truth.json", tmp_path / "events.ndjson"
    process = start("simulate", "--rate", "200", "--truth", str(truth), "--to", str(events))
    deadline = time.monotonic() + 60
    while lines_of(events) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert json.loads(truth.read_text())["events"] == lines_of(events) >= 20


def test_an_interrupted_plan_has_no_truth(start: Any, tmp_path: Path) -> None:
    truth, events = tmp_path / "truth.json", tmp_path / "events.ndjson"
    process = start("simulate", "--events", "5000", "--rate", "50", "--truth", str(truth), "--to", str(events))
    deadline = time.monotonic() + 60
    while lines_of(events) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "is not written" in errors
    assert not truth.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--events N"),
        (("--rate", "5", "--days", "2"), 2, "need --events"),
        (("--rate", "5", "--end", "2026-01-01"), 2, "need --events"),
        (("--events", "5", "--end", "soon"), 2, "is not a time"),
        (("--events", "5", "--end", "2026-01-01T00:00:00"), 2, "no time zone"),
        (("--events", "5", "--end", f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"), 1, "earlier --end"),
        (("--events", "5", "--truth", "/nowhere/at/all"), 1, "does not exist"),
        (("--events", "5", "--to", "http://"), 1, "names no host"),
        (("--events", "5", "--to", "http://a:b"), 1, "address of a collector"),
        (("--events", "5", "--to", "/"), 1, "Is a directory (/)"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert said in run("simulate", *arguments, code=code).stderr


def test_a_run_that_ingestion_would_reject_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_FIRST_DAY", "2026-01-01")
    error = run("simulate", "--events", "5", "--end", "2026-01-15", code=1).stderr
    assert "events before 2026-01-01 are rejected" in error
